"""Counts the events of the security log in memory, until ``shared.accounts.audit_log`` stores the counts."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from shared.accounts.audit_events import WINDOWS, Event, EventType, Window, clean, count_id
from shared.fetch.addresses import client_key

_MAX_CLIENTS: Final = 8
"""Number of client networks that are remembered for each subject in a window."""
_OTHERS: Final = ("others",)
"""The subject of events that are counted together."""


@dataclass(frozen=True, slots=True)
class Count:
    """How often an event has happened since it was counted last.

    ``id`` is the id of its document, ``event`` the first event of the window in this process. ``last_address`` is the
    address of the last event, and ``clients`` are the networks of its clients.
    """

    id: str
    event: Event
    times: int
    first_at: datetime
    last_at: datetime
    last_address: str | None
    clients: tuple[str, ...]

    def members(self) -> dict[str, Any]:
        """Return the members of the event and of the count that are set, as they are logged."""
        members = self.event.members() | {"count": self.times}
        return members if self.last_address is None else members | {"last_address": self.last_address}


@dataclass(slots=True)
class _Subject:
    """The events of one subject in a window. ``times`` counts those that have not been taken yet."""

    id: str
    event: Event
    first_at: datetime
    last_at: datetime
    clients: dict[str, None] = field(default_factory=dict)
    times: int = 0
    last_address: str | None = None
    taken_at: datetime | None = None

    def add(self, event: Event, at: datetime, times: int) -> None:
        if self.times == 0:
            self.first_at = at
        self.times += times
        self.last_at, self.last_address = at, None if event.address is None else clean(event.address)
        if event.address is not None and len(self.clients) < _MAX_CLIENTS:
            self.clients[client_key(event.address)] = None

    def take(self, now: datetime) -> Count:
        count = Count(self.id, self.event, self.times, self.first_at, self.last_at, self.last_address, tuple(self.clients))
        self.times, self.taken_at = 0, now
        return count


class EventCounts:
    """Counts events by type, subject and window, for a bounded number of subjects. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: dict[tuple[EventType, datetime], dict[tuple[str, ...], _Subject]] = {}

    def add(self, event: Event, at: datetime, times: int = 1) -> None:
        """Count an event. Its type is one of ``WINDOWS``.

        Events of more than ``max_subjects`` subjects are counted as one event, which names none of these subjects.
        """
        window = WINDOWS[event.type]
        start, subject = window.start(at), event.subject()
        with self._lock:
            subjects = self._windows.setdefault((event.type, start), {})
            if subject not in subjects and len(subjects) >= window.max_subjects:
                subject, event = _OTHERS, Event(event.type, details={"others": True})
            found = subjects.get(subject)
            if found is None:
                found = subjects[subject] = _Subject(count_id(event.type, subject, start), event, at, at)
            found.add(event, at, times)

    def take(self, now: datetime, *, everything: bool = False) -> list[Count]:
        """Return the counts that must be stored now, and begin anew with these.

        :param everything: whether to return all counts, including those that can still wait.
        """
        with self._lock:
            return [count for key in list(self._windows) for count in self._take_window(key, now, everything=everything)]

    def _take_window(self, key: tuple[EventType, datetime], now: datetime, *, everything: bool) -> Iterator[Count]:
        window, subjects = WINDOWS[key[0]], self._windows[key]
        is_over = now >= key[1] + window.length
        for subject in subjects.values():
            if subject.times and (everything or is_over or _is_due(subject, window, now)):
                yield subject.take(now)
        if is_over:
            del self._windows[key]


def _is_due(subject: _Subject, window: Window, now: datetime) -> bool:
    return subject.taken_at is None or (now - subject.taken_at).total_seconds() >= window.flush_s
