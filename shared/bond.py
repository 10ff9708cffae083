"""Database and file store belong together: each bears the same mark.

A volume that is not mounted, or a path that is not the right one, looks like a store from which everything has vanished. Who finds no
bytes there would call them lost, and who writes there would write where nobody looks. So nothing is accepted, called missing or
cleaned up by a process whose store does not bear its database's mark.
"""

import logging
from typing import Final
from uuid import uuid4

from pymongo import ReturnDocument

from shared.blobs import BlobMissing, BlobStore
from shared.errors import ShelfsightError, StoreAway
from shared.layout import MARK
from shared.mongo import Db, translated

_ID: Final = "blobs"
_log = logging.getLogger("shelfsight.error")


class Bond:
    """What a process knows of the bond. For several threads at once."""

    def __init__(self, db: Db, blobs: BlobStore) -> None:
        """Take the two; nothing is asked before the first check."""
        self._db, self._blobs = db, blobs
        self._mark: str | None = None
        self._refused = False

    def check(self) -> None:
        """See that the store bears the database's mark; where neither has one yet, both get it. Costs the reading of a small file.

        :raises StoreAway: it does not (``blobs_unavailable``), or one of them does not answer.
        """
        found = self._found()
        if self._mark is None:
            self._mark = self._known() or self._begin(found)
        if found != self._mark and self._found() != self._mark:  # a second look: another process may just have begun
            self._refuse(found)
        self._refused = False

    def _found(self) -> str | None:
        try:
            return self._blobs.read(MARK).decode("ascii", "replace").strip()
        except BlobMissing:
            return None

    def _known(self) -> str | None:
        with translated():
            bond = self._db.bonds.find_one({"_id": _ID})
        return None if bond is None else str(bond["mark"])

    def _begin(self, found: str | None) -> str:
        """Mark a database and a store that are both new, or both older than marks."""
        if found is not None:
            self._refuse(found)
        mine = uuid4().hex
        with translated():
            bond = self._db.bonds.find_one_and_update({"_id": _ID}, {"$setOnInsert": {"mark": mine}}, upsert=True, return_document=ReturnDocument.AFTER)
        assert bond is not None  # noqa: S101 -- an upsert gives what stands then
        if bond["mark"] == mine:
            try:
                self._blobs.write(MARK, [mine.encode()])
            except ShelfsightError:  # a full disk, say: begin again later
                with translated():
                    self._db.bonds.delete_one({"_id": _ID, "mark": mine})
                raise
        return str(bond["mark"])

    def _refuse(self, found: str | None) -> None:
        if not self._refused:
            self._refused = True
            has = f"says {found}" if found else "is missing"
            if self._mark is None:
                _log.critical("BLOBS_ROOT bears the mark of another database: its file %r %s. Is MONGODB_URL the right one? If so, remove the file.", MARK, has)
            else:
                _log.critical(
                    "BLOBS_ROOT is not the folder that belongs to this database: its file %r should say %s and %s. Is its volume mounted? "
                    "If it is the right folder, write that into the file.", MARK, self._mark, has,
                )  # fmt: skip
        raise StoreAway("The file store that is there does not belong to the database; the server's log says more.", code="blobs_unavailable", retry_after=30)
