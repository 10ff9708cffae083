"""Returns the names of the tags of images. Images hold the ids of their tags, so that a tag is renamed in one write."""

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Final

from pymongo.client_session import ClientSession

from shared.storage.mongo import Db, Document, translate_errors

_READ_AHEAD: Final = 256
_FIELDS: Final = {"name": 1, "key": 1, "merged_into": 1}


class TagNames:
    """Reads names of tags for one response. It reads each tag once, when it is first needed. It is not thread-safe.

    Most installations have few tags, so the first read is that of all tags if there are no more than ``_READ_AHEAD``. ``load``
    reads several tags at once, and ``add`` adds one that was read already. In a transaction, of which it gets the session, it
    reads only what is needed, and lets errors of the driver pass.
    """

    def __init__(self, db: Db, session: ClientSession | None = None) -> None:
        self._db, self._session = db, session
        self._tags: dict[str, tuple[str, str] | None] = {}
        self._reads_ahead = session is None

    def add(self, tag_id: str, name: str) -> None:
        """Add a tag that was neither merged nor deleted when the response was begun."""
        self._tags[tag_id] = (tag_id, name)

    def load(self, ids: Iterable[str]) -> None:
        """Read the tags with some ids that are not known yet.

        :raises StoreAway: when MongoDB does not respond.
        """
        self._read(set(ids) - self._tags.keys())

    def show(self, applied: Iterable[Document]) -> list[str]:
        """Return the names of the tags that an image holds, in their order. Deleted tags have none."""
        return [name for _, name, _ in self.resolve(applied)]

    def resolve(self, applied: Iterable[Document]) -> list[tuple[str, str, Document]]:
        """Return for each tag of an image: its id (after merges), its name, and how it was applied (``AppliedTag``).

        Deleted tags are left out. Of tags that were merged into one, only the first is returned.
        """
        entries = list(applied)
        self.load(entry["id"] for entry in entries)
        found: dict[str, tuple[str, str, Document]] = {}
        for entry in entries:
            tag = self._tags[entry["id"]]
            if tag is not None:
                found.setdefault(tag[0], (*tag, entry))
        return list(found.values())

    def _read(self, ids: set[str]) -> None:
        if not ids:
            return
        with translate_errors() if self._session is None else nullcontext():
            rows = self._find_first() or self._find(ids)
            targets = {row["merged_into"] for row in rows.values() if "merged_into" in row} - rows.keys()
            if targets:
                rows |= self._find(targets)
        for tag_id in ids | rows.keys():
            row = rows.get(tag_id)
            if row is not None and "merged_into" in row:
                row = rows.get(row["merged_into"])
            self._tags[tag_id] = (row["_id"], row["name"]) if row is not None and "key" in row else None

    def _find_first(self) -> dict[str, Document]:
        """Return all tags, if this is the first read and there are few. Otherwise, return nothing."""
        if not self._reads_ahead:
            return {}
        self._reads_ahead = False
        rows = list(self._db.tags.find({}, _FIELDS, limit=_READ_AHEAD + 1, batch_size=_READ_AHEAD + 1))
        return {row["_id"]: row for row in rows} if len(rows) <= _READ_AHEAD else {}

    def _find(self, ids: set[str]) -> dict[str, Document]:
        return {row["_id"]: row for row in self._db.tags.find({"_id": {"$in": sorted(ids)}}, _FIELDS, session=self._session)}
