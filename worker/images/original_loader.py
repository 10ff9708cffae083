"""Read the originals of claimed images, and store each of them under its own key."""

import hashlib
import logging

from shared import failpoints
from shared.bootstrap import Stores
from shared.ids import batch_of
from shared.ledger import claims
from shared.storage.blob_keys import spool_key
from shared.storage.blobs import BlobMissing
from shared.storage.mongo import Document
from worker.images.stages import LoadedImage
from worker.runtime.lease_keeper import LeaseKeeper
from worker.spools import originals

_log = logging.getLogger("shelfsight.error")


class OriginalLoader:
    """Loads the originals of images that were claimed under one owner name."""

    def __init__(self, stores: Stores, owner: str, leases: LeaseKeeper) -> None:
        """Set where the originals are.

        :param leases: the leases that the owner holds. The lease of an image is dropped if it turns out to be lost.
        """
        self._db, self._blobs, self._identity = stores.db, stores.blobs, stores.identity
        self._owner, self._leases = owner, leases

    def load(self, images: list[Document]) -> list[LoadedImage]:
        """Read the original of each image, and store it under its own key unless it is already stored there.

        This is done for all images of a claim before any of them is decoded. Only bytes with the digest of the image
        are written. An earlier claim may have left other bytes under the key, so what is there is compared with them.

        :raises StoreAway: when the blob store or MongoDB does not respond.
        :raises DiskFull: when there is no room for the files.
        """
        loaded = [self._load(image) for image in images]
        found = [original for original in loaded if original.fault is None]
        wrong = [original for original in found if not originals.contains(self._blobs, original.image, original.data)]
        self._blobs.write_many([(originals.key(original.image), [original.data]) for original in wrong])
        for original in found:
            original.image["work"]["stored"] = True  # the image's result will record it
        failpoints.reach("5-original-kept")
        return loaded

    def _load(self, image: Document) -> LoadedImage:
        for key, offset in ((spool_key(batch_of(image["_id"])), image["work"]["offset"]), (originals.key(image), 0)):
            try:
                data = self._blobs.read(key, offset, image["file_size"])
            except BlobMissing:
                continue
            if hashlib.sha256(data).hexdigest() == image["sha256"]:
                return LoadedImage(image, data)
        lease = claims.LEASES.lease(image)
        # A deletion raises the fence before it deletes the bytes, and the lease keeper has not noticed it yet.
        if not claims.LEASES.holds(self._db, self._owner, lease):
            self._leases.drop([lease])
            return LoadedImage(image, fault=("lease_lost", ""))
        self._identity.check()  # raises an error if the whole blob store is missing, not only these bytes
        _log.critical("the stored bytes of an accepted image are missing: %s", image["_id"])
        return LoadedImage(
            image, fault=("bytes_missing", "The stored bytes of this image cannot be found. Upload the image again.")
        )
