"""Write the files of several images together, so that the images whose files can be written do not wait for the others."""

import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from shared.bootstrap import Stores
from shared.errors import StoreAway
from shared.storage.disk_errors import describe
from shared.storage.mongo import Document
from worker.images.claim_end import ClaimEnd
from worker.spools.store_check import check_store

_log = logging.getLogger("shelfsight.error")
_CHECK_INTERVAL_S: Final = 1.0

Files = Sequence[tuple[str, list[Any]]]
"""Blob keys, each with the parts of its content."""


class FileWriter:
    """Writes the files of images that were claimed under one owner name."""

    def __init__(self, stores: Stores, claim_end: ClaimEnd) -> None:
        """Set where the files go.

        :param claim_end: releases the images whose files cannot be written now.
        """
        self._blobs, self._identity, self._claim_end = stores.blobs, stores.identity, claim_end
        self._checked_at = float("-inf")

    def write(self, files: Iterable[tuple[Document, Files]]) -> set[str]:
        """Write the files of each image. If only those of some images cannot be written, release these images.

        :returns: the ids of the images that were released.
        :raises StoreAway: when the whole blob store does not work.
        :raises DiskFull: when there is no room for the files.
        """
        by_image = list(files)
        try:
            self._blobs.write_many([file for _, own in by_image for file in own])
        except StoreAway:
            self.check_store()
        else:
            return set()
        return {image["_id"] for image, own in by_image if not self._write_one(image, own)}

    def check_store(self) -> None:
        """Check the whole blob store, at most once a second, because an error can occur for every image of a claim.

        :raises StoreAway: when the blob store does not work, not only for some files.
        """
        if time.monotonic() >= self._checked_at + _CHECK_INTERVAL_S:
            check_store(self._identity, self._blobs)
            self._checked_at = time.monotonic()

    def _write_one(self, image: Document, files: Files) -> bool:
        try:
            self._blobs.write_many(list(files))
        except StoreAway as error:
            _log.warning("the files of image %s cannot be written: %s", image["_id"], describe(error.__cause__))
            self._claim_end.release([image], error.code)
            return False
        return True
