"""Database and file store belong together: each bears the same mark.

A volume that is not mounted, or a path that is not the right one, looks like a store from which everything has vanished. Who finds no
bytes there would call them lost, and who writes there would write where nobody looks. So nothing is accepted, called missing or
cleaned up by a process whose store does not bear its database's mark.
"""

import logging
from typing import Final, NoReturn
from uuid import uuid4

from pymongo import ReturnDocument

from shared.errors import StoreAway
from shared.storage.blob_keys import MARK, spool_key
from shared.storage.local_blobs import BlobMissing, BlobStore
from shared.storage.mongo import Db, Document, translated

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
        if found is None or found != self._mark:
            self._mark = self._agreed()
        self._refused = False

    def _found(self) -> str | None:
        try:
            return self._blobs.read(MARK).decode("ascii", "replace").strip()
        except BlobMissing:
            return None

    def _agreed(self) -> str:
        """Ask the database. Until it knows that the store has its mark, a store without one gets it: whoever drew it may have ended before."""
        with translated():
            bond = self._db.bonds.find_one({"_id": _ID}) or self._begin()
        mark, found = str(bond["mark"]), self._found()  # the file after the database: who says "kept" there has written it
        if found is None and not bond["kept"]:
            self._blobs.write(MARK, [mark.encode()])
            found = mark
        if found != mark:
            self._refuse("BLOBS_ROOT is not the folder that belongs to this database: its file %r should say %r and %s. Is its volume mounted? "
                         "If it is the right folder, write that into the file.", MARK, mark, "is missing" if found is None else f"says {found!r}")  # fmt: skip
        if not bond["kept"]:
            with translated():
                self._db.bonds.update_one({"_id": _ID, "mark": mark}, {"$set": {"kept": True}})
        return mark

    def _begin(self) -> Document:
        """Draw a mark for a database that has none: it is new, or older than marks."""
        found = self._found()
        if found is not None and self._db.bonds.find_one({"_id": _ID}) is None:  # else another process has just begun
            self._refuse("BLOBS_ROOT belongs to another database: its file %r says %r. Is MONGODB_URL the right one? If it is, remove the file.", MARK, found)
        spooled = self._db.batches.find_one({"spooled": True}, {"_id": 1})
        if spooled is not None and self._blobs.stat(spool_key(spooled["_id"])) is None:
            self._refuse("BLOBS_ROOT has no spool of batch %s, which this database knows. Is its volume mounted? If it is the right folder and the spool "
                         "is lost, unset the field `spooled` of that batch.", spooled["_id"])  # fmt: skip
        draw = {"$setOnInsert": {"mark": uuid4().hex, "kept": False}}
        bond = self._db.bonds.find_one_and_update({"_id": _ID}, draw, upsert=True, return_document=ReturnDocument.AFTER)
        assert bond is not None  # noqa: S101 -- an upsert gives what stands then
        return bond

    def _refuse(self, why: str, *about: str) -> NoReturn:
        if not self._refused:
            self._refused = True
            _log.critical(why, *about)
        raise StoreAway("The file store that is there does not belong to the database; the server's log says more.", code="blobs_unavailable", retry_after=30)
