"""Read the originals of claimed images, and store each of them under its own key."""

import hashlib
import logging

from shared import failpoints
from shared.bootstrap import Stores
from shared.errors import StoreAway, StoreMisconfigured
from shared.ids import batch_of
from shared.ledger import claims
from shared.storage.blob_keys import spool_key
from shared.storage.blobs import BlobMissing
from shared.storage.disk_errors import describe
from shared.storage.mongo import Document
from worker.images.attempt_times import AttemptTimes
from worker.images.claim_end import ClaimEnd
from worker.images.file_writer import FileWriter
from worker.images.stages import LoadedImage
from worker.runtime.lease_keeper import LeaseKeeper
from worker.spools import originals

_log = logging.getLogger("shelfsight.error")


class OriginalLoader:
    """Loads the originals of images that were claimed under one owner name."""

    def __init__(
        self, stores: Stores, owner: str, leases: LeaseKeeper, times: AttemptTimes, claim_end: ClaimEnd, file_writer: FileWriter
    ) -> None:
        """Set where the originals are.

        :param leases: the leases that the owner holds. The lease of an image is dropped if it turns out to be lost.
        :param times: gets the time that each image takes.
        :param claim_end: releases the images that cannot be read now.
        :param file_writer: stores the originals.
        """
        self._db, self._blobs, self._identity = stores.db, stores.blobs, stores.identity
        self._owner, self._leases, self._times = owner, leases, times
        self._claim_end, self._file_writer = claim_end, file_writer

    def load(self, images: list[Document]) -> list[LoadedImage]:
        """Read the original of each image, and store it under its own key unless it is already stored there.

        This is done for all images of a claim before any of them is decoded. Only bytes with the digest of the image
        are written. An earlier claim may have left other bytes under the key, so what is there is compared with them.

        :returns: the images, without those that cannot be read or stored now and have been released.
        :raises StoreAway: when the blob store does not work, not only for some of the images, or MongoDB does not respond.
        :raises DiskFull: when there is no room for the files.
        """
        loaded = [original for image in images if (original := self._load_measured(image)) is not None]
        found = [original for original in loaded if original.fault is None]
        with self._times.measure("load_ms", [original.image for original in found]):
            wrong = [original for original in found if not originals.contains(self._blobs, original.image, original.data)]
            failed = self._file_writer.write((original.image, [(originals.key(original.image), [original.data])]) for original in wrong)
        for original in found:
            original.image["work"]["stored"] = True  # the image's result will record it
        failpoints.reach("5-original-kept")
        return [original for original in loaded if original.image["_id"] not in failed]

    def _load_measured(self, image: Document) -> LoadedImage | None:
        with self._times.measure("load_ms", [image]):
            return self._load(image)

    def _load(self, image: Document) -> LoadedImage | None:
        """Read the original of an image. Return None if it cannot be read now, and the image has been released."""
        unreadable: StoreAway | None = None
        for key, offset in ((spool_key(batch_of(image["_id"])), image["work"]["offset"]), (originals.key(image), 0)):
            try:
                data = self._blobs.read(key, offset, image["file_size"])
            except BlobMissing:
                continue
            except StoreAway as error:
                self._file_writer.check_store()  # raises an error if the blob store does not work
                _log.warning("image %s cannot be read: %s at byte %d: %s", image["_id"], key, offset, describe(error.__cause__))
                unreadable = error
                continue
            if hashlib.sha256(data).hexdigest() == image["sha256"]:
                return LoadedImage(image, data)
        lease = claims.LEASES.lease(image)
        # A deletion raises the fence before it deletes the bytes, and the lease keeper has not noticed it yet.
        if not claims.LEASES.holds(self._db, self._owner, lease):
            self._leases.drop([lease])
            return LoadedImage(image, fault=("lease_lost", ""))
        if unreadable is not None and not (claims.is_unreadable(image) and _is_damage(unreadable)):
            is_damage = _is_damage(unreadable)
            self._claim_end.release([image], unreadable.code, solo=is_damage, read_error=is_damage)
            return None
        self._identity.check()  # raises an error if the whole blob store is missing, not only these bytes
        state, verb = ("missing", "found") if unreadable is None else ("unreadable", "read")
        _log.critical("the stored bytes of an accepted image are %s: %s", state, image["_id"])
        return LoadedImage(
            image, fault=("bytes_missing", f"The stored bytes of this image cannot be {verb}. Upload the image again.")
        )


def _is_damage(error: StoreAway) -> bool:
    """Return whether a read error can be due to damage, and not to something that an operator corrects."""
    return not isinstance(error, StoreMisconfigured)
