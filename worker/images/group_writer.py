"""Write the files of a processed group, store its results, and publish its images."""

import logging

from shared import failpoints
from shared.bootstrap import Stores
from shared.ledger import claims, results
from shared.ledger.results import Result
from shared.queue.leases import Lease
from shared.storage.blob_keys import image_prefix, variant_key
from shared.storage.mongo import Document
from worker.images.file_writer import Files, FileWriter
from worker.images.stages import DetectedGroup, Fault
from worker.runtime.lease_keeper import LeaseKeeper
from worker.vision.detection.detect import Detector
from worker.vision.errors import VisionError
from worker.vision.image_steps import PreparedImage

_log = logging.getLogger("shelfsight.error")


class GroupWriter:
    """Writes the results of groups that were claimed under one owner name."""

    def __init__(self, stores: Stores, detector: Detector, owner: str, leases: LeaseKeeper, file_writer: FileWriter) -> None:
        """Set what the results depend on.

        :param leases: the leases that the owner holds. Nothing is written for images whose leases are lost.
        :param file_writer: writes the files, and releases the images whose files cannot be written now.
        """
        self._db, self._blobs = stores.db, stores.blobs
        self._detector, self._owner, self._leases, self._file_writer = detector, owner, leases, file_writer

    def write(self, group: DetectedGroup) -> set[str]:
        """Wait until the images of a group are finished, write their files, and store their results.

        :returns: the ids of the images whose results were stored.
        :raises SandboxKilled: when the sandbox process was killed while it finished an image.
        :raises StoreAway: when the whole blob store does not work, or MongoDB does not respond.
        :raises DiskFull: when there is no room for the files.
        """
        files: list[tuple[Document, Files]] = []
        group_results = [_failure(image, fault) for image, fault in group.failed]
        for image, finishing in group.finishing:
            try:
                prepared = finishing.result()
            except VisionError as error:  # raised only for an image that is tried alone
                group_results.append(_failure(image, (error.code, error.detail)))
                continue
            group_results.append(self._success(image, prepared))
            if self._leases.holds(claims.LEASES.lease(image)):
                fence = image["work"]["fence"]
                files.append((image, [(variant_key(image["_id"], fence, name), [data]) for name, data in prepared.files.items()]))
        self._file_writer.write(files)  # drops the leases of the images that it releases
        failpoints.reach("5-variants-written")
        held = [result for result in group_results if self._leases.holds(Lease(result.image_id, result.fence))]
        failpoints.reach("6-before-finish")
        stored = results.finish(self._db, self._owner, held)
        failpoints.reach("6-finished")
        self._publish([result for result in held if result.image_id in stored and result.error is None])
        return stored

    def _success(self, image: Document, prepared: PreparedImage) -> Result:
        model = self._detector.info if image["work"]["detect"] else None
        fields = prepared.fields | {"model": model}
        return Result(image["_id"], image["work"]["fence"], fields, stored=_is_stored(image), barcode=image["barcode"])

    def _publish(self, done: list[Result]) -> None:
        """Publish the variants of done images, so that a plain file server can serve them.

        The results of these images are already stored, so a failure here must not affect the results or the claim.
        """
        try:
            for result in done:
                self._blobs.publish(image_prefix(result.image_id), str(result.fence))
        except Exception as error:  # noqa: BLE001 -- the web process serves the variants until the sweep publishes them
            _log.warning("the variants of done images were not published: %s", type(error).__name__, exc_info=error)


def _failure(image: Document, fault: Fault) -> Result:
    return Result(image["_id"], image["work"]["fence"], {"model": None}, fault, stored=_is_stored(image))


def _is_stored(image: Document) -> bool:
    """Return whether this claim or an earlier one has stored the original of an image and verified it."""
    return bool(image["work"].get("stored"))
