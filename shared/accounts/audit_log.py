"""The security log: writes events to the channel ``shelfsight.security`` and to MongoDB, and reads them from MongoDB.

``shared.accounts.audit_events`` describes the events. MongoDB deletes them after 180 days. While MongoDB does not respond,
events are only in the log of the process, and counts are stored later. If MongoDB fails while it stores a count, the count
may be added twice, because it is better to count an attack too often than not at all.
"""

import atexit
import logging
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pymongo import DESCENDING, UpdateOne
from pymongo.errors import BulkWriteError

from shared import telemetry
from shared.accounts.audit_events import (
    EPOCH,
    WINDOWS,
    Event,
    EventType,
    largest_event_id,
    new_event_id,
    smallest_event_id,
)
from shared.accounts.event_counts import Count, EventCounts
from shared.clock import utc_now
from shared.errors import ShelfsightError
from shared.fetch.addresses import client_key
from shared.storage.mongo import Db, Document, deadline, translate_errors

_TICK_S: Final = 1.0
_BULK: Final = 500
_MAX_UNSTORED: Final = 10_000
"""Number of counts that are kept in memory while MongoDB does not respond."""
_WARNINGS: Final[frozenset[EventType]] = frozenset({"sign_in.failed", "sign_in.throttled", "token.reused", "request.refused"})


@dataclass(frozen=True, slots=True)
class EventFilters:
    """Conditions for a list of events. An event is listed if it meets all conditions that are set.

    ``address`` is a client as ``client_key`` returns it: a counted event has up to eight of them for each process.
    ``since`` and ``until`` (naive UTC, inclusive) select events that happened at least once between these times.
    """

    type: str | None = None
    username: str | None = None
    key_id: str | None = None
    address: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def query(self, after: str | None) -> Document:
        """Return the MongoDB query for the events that meet the conditions and have a smaller id than ``after``."""
        equal = {"type": self.type, "username": self.username, "key_id": self.key_id, "clients": self.address, "target": self.target}
        query: Document = {name: value for name, value in equal.items() if value is not None}
        ids = {} if after is None else {"$lt": after}
        if self.since is not None:
            # The id of a counted event has the time at which its window begins.
            longest = max((window.length for name, window in WINDOWS.items() if self.type in {None, name}), default=timedelta())
            ids["$gte"] = smallest_event_id(max(EPOCH, self.since) - longest)
            query["last_at"] = {"$gte": self.since}
        if self.until is not None:
            ids["$lte"] = largest_event_id(self.until)
            query["at"] = {"$lte": self.until}
        return query | {"_id": ids} if ids else query


class AuditLog:
    """The security log of one process. Thread-safe.

    A thread stores the counts of events. It starts with the first of them, and stores the last ones in ``close``, which is
    also called when the interpreter exits.
    """

    def __init__(self, db: Db, *, write_deadline_s: float = 5.0) -> None:
        """Create the log. It uses the database when the first event is recorded.

        :param write_deadline_s: the number of seconds after which an event is not stored in MongoDB.
        """
        self._db, self._write_deadline_s = db, write_deadline_s
        self._counts = EventCounts()
        self._unstored: list[Count] = []
        self._storing = threading.Lock()
        """Held while counts are taken and stored, because these must not be stored twice."""
        self._failures = telemetry.RepeatLimit(telemetry.REPEAT_INTERVAL_S)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def record(self, event: Event) -> None:
        """Log an event and store it durably, unless events of its type are counted.

        If MongoDB does not respond, the event is only logged: what has happened cannot be refused any more.
        """
        if event.type in WINDOWS:
            self.count(event)
            return
        at, members = utc_now(), event.members()
        _log(event.type, members)
        document = {"_id": new_event_id(at), "type": event.type, "at": at, "last_at": at, "count": 1, **members}
        if event.address is not None:
            document["clients"] = [client_key(event.address)]
        try:
            with deadline(self._write_deadline_s):
                self._db.audit_events.insert_one(document)
        except ShelfsightError as error:
            self._report_failure("A security event cannot be stored in MongoDB, so it is only in the log", error)

    def count(self, event: Event, times: int = 1) -> None:
        """Count an event whose type is one of ``WINDOWS``. Neither the log nor MongoDB is written here, but soon after.

        :param times: how often the event has happened.
        """
        self._counts.add(event, utc_now(), times)
        if self._thread is None:
            self._start()

    def flush(self) -> None:
        """Log and store all counts now. If MongoDB does not respond, the thread tries again later."""
        self._store(everything=True)

    def close(self) -> None:
        """End the thread, and store all counts."""
        self._closed.set()
        atexit.unregister(self.close)
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def find(self, filters: EventFilters, *, after: str | None, limit: int, deadline_s: float = 10.0) -> list[Document]:
        """Return the stored events that meet the conditions, the newest first.

        :param after: the id of the last event of the previous page. If None, the first page is returned.
        :raises TooSlow: when the query takes longer than ``deadline_s``.
        :raises StoreAway: when MongoDB does not respond.
        """
        with translate_errors():
            found = self._db.audit_events.find(filters.query(after)).sort("_id", DESCENDING).limit(limit).batch_size(limit + 1)
            return list(found.max_time_ms(int(deadline_s * 1000)))

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)
                self._thread.start()
                atexit.register(self.close)

    def _run(self) -> None:
        while not self._closed.wait(_TICK_S):
            self._store(everything=False)

    def _store(self, *, everything: bool) -> None:
        with self._storing:
            taken = self._counts.take(utc_now(), everything=everything)
            for count in taken:
                _log(count.event.type, count.members())
            self._unstored += taken
            lost = len(self._unstored) - _MAX_UNSTORED
            if lost > 0:
                del self._unstored[:lost]
            try:
                while self._unstored:
                    self._store_some()
            except ShelfsightError as error:
                text = "Counts of security events cannot be stored in MongoDB"
                self._report_failure(f"{text}; the oldest are only in the log" if lost > 0 else text, error)

    def _store_some(self) -> None:
        counts = self._unstored[:_BULK]
        try:
            with deadline(self._write_deadline_s):
                self._db.audit_events.bulk_write([_update(count) for count in counts], ordered=False)
        except ShelfsightError as error:
            if isinstance(error.__cause__, BulkWriteError):  # the others have been stored
                refused = [failed["index"] for failed in error.__cause__.details["writeErrors"]]
                self._unstored[:_BULK] = [counts[index] for index in refused]
            raise
        del self._unstored[:_BULK]

    def _report_failure(self, text: str, error: ShelfsightError) -> None:
        omitted = self._failures.count_omitted(text)
        if omitted is not None:
            more = f" This occurred {omitted} more times since it was last logged." if omitted else ""
            telemetry.errors.error("%s: %s.%s", text, error.code, more)


def _log(event_type: EventType, members: dict[str, Any]) -> None:
    level = logging.WARNING if event_type in _WARNINGS else logging.INFO
    telemetry.security.log(level, "%s", event_type, extra={"data": members})


def _update(count: Count) -> UpdateOne:
    """Return the update that adds a count to its document. Several processes update the same document."""
    update: Document = {
        "$setOnInsert": {"type": count.event.type, **count.event.members()},
        "$min": {"at": count.first_at},
        "$max": {"last_at": count.last_at},
        "$inc": {"count": count.times},
    }
    if count.last_address is not None:
        update["$set"] = {"last_address": count.last_address}
    if count.clients:
        update["$addToSet"] = {"clients": {"$each": list(count.clients)}}
    return UpdateOne({"_id": count.id}, update, upsert=True)
