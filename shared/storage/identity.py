"""The store identity: a random marker in both the database and the blob store. It shows that the two belong together.

If a volume is not mounted or a path is wrong, the blob store appears to have lost every blob. A process that reads from
such a blob store would declare the images lost, and a process that writes to it would write where no reader finds the
data. Therefore, a process whose blob store lacks the marker of its database accepts no upload, declares no image lost,
and deletes nothing.
"""

import logging
from typing import Final, NoReturn
from uuid import uuid4

from pymongo import ReturnDocument

from shared.errors import StoreAway
from shared.storage.blob_keys import IDENTITY, spool_key
from shared.storage.blobs import BlobMissing, BlobStore
from shared.storage.mongo import Db, Document, translate_errors

_ID: Final = "blobs"
_log = logging.getLogger("shelfsight.error")


class StoreIdentity:
    """Checks that one database and one blob store belong together. Thread-safe."""

    def __init__(self, db: Db, blobs: BlobStore) -> None:
        self._db, self._blobs = db, blobs
        self._marker: str | None = None
        self._refused = False

    def check(self) -> None:
        """Verify that the blob store holds the marker of the database. If neither has a marker yet, create one.

        A call usually costs one read of a small file.

        :raises StoreAway: when the marker differs or is missing (``blobs_unavailable``), or when the database or the
            blob store does not respond.
        """
        found = self._read_marker()
        if found is None or found != self._marker:
            self._marker = self._verify()
        self._refused = False

    def _read_marker(self) -> str | None:
        try:
            return self._blobs.read(IDENTITY).decode("ascii", "replace").strip()
        except BlobMissing:
            return None

    def _verify(self) -> str:
        """Check that the blob store and the database have the same marker, and return the marker.

        The field ``kept`` in the database says whether the marker has already been written to the blob store. If it has
        not, and the blob store has no marker, this method writes the marker to the blob store. This is needed because
        the process that created the marker in the database may have died before it wrote the file.
        """
        with translate_errors():
            identity = self._db.bonds.find_one({"_id": _ID}) or self._create()
        # Read the file after the database, because a process writes the file before it sets "kept".
        marker, found = str(identity["mark"]), self._read_marker()
        if found is None and not identity["kept"]:
            self._blobs.write(IDENTITY, [marker.encode()])
            found = marker
        if found != marker:
            self._refuse(
                "BLOBS_ROOT does not belong to this database: its file %r must contain %r, but %s. Check that "
                "the volume is mounted. If BLOBS_ROOT is the right folder, write the expected text into the file.",
                IDENTITY, marker, "the file is missing" if found is None else f"contains {found!r}",
            )  # fmt: skip
        if not identity["kept"]:
            with translate_errors():
                self._db.bonds.update_one({"_id": _ID, "mark": marker}, {"$set": {"kept": True}})
        return marker

    def _create(self) -> Document:
        """Create the marker for a database that has none.

        Such a database is either new, or was created by a version of the service without store identities.
        """
        found = self._read_marker()
        # If the database has a marker now, another process has just created it.
        if found is not None and self._db.bonds.find_one({"_id": _ID}) is None:
            self._refuse(
                "BLOBS_ROOT belongs to another database: its file %r contains %r. "
                "Check MONGODB_URL. If it is right, delete the file.",
                IDENTITY, found,
            )  # fmt: skip
        spooled = self._db.batches.find_one({"spooled": True}, {"_id": 1})
        if spooled is not None and self._blobs.stat(spool_key(spooled["_id"])) is None:
            self._refuse(
                "BLOBS_ROOT lacks the spool of batch %s, which this database expects. Check that the volume is "
                "mounted. If BLOBS_ROOT is the right folder and the spool is lost, unset the field `spooled` of this batch.",
                spooled["_id"],
            )  # fmt: skip
        create = {"$setOnInsert": {"mark": uuid4().hex, "kept": False}}
        identity = self._db.bonds.find_one_and_update({"_id": _ID}, create, upsert=True, return_document=ReturnDocument.AFTER)
        assert identity is not None  # noqa: S101 -- an upsert returns the document
        return identity

    def _refuse(self, message: str, *arguments: str) -> NoReturn:
        if not self._refused:
            self._refused = True
            _log.critical(message, *arguments)
        raise StoreAway("The blob store does not belong to the database; see the server's log for details.", code="blobs_unavailable", retry_after=30)
