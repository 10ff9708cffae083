"""Write the files of a processed group, store its results, and publish its images."""

import logging
from dataclasses import replace
from typing import Any

from shared import failpoints
from shared.bootstrap import Stores
from shared.ledger import claims, results
from shared.ledger.results import Result
from shared.ledger.shown_results import options_of, shown_fence
from shared.queue.leases import Lease
from shared.storage.blob_keys import variant_key
from shared.storage.mongo import Document
from worker.images.attempt_times import AttemptTimes
from worker.images.file_writer import Files, FileWriter
from worker.images.stages import DetectedGroup, Fault
from worker.runtime.lease_keeper import LeaseKeeper
from worker.spools.publication import publish
from worker.vision.detection.detect import Detector
from worker.vision.errors import VisionError
from worker.vision.image_steps import PreparedImage

_log = logging.getLogger("shelfsight.error")


class GroupWriter:
    """Writes the results of groups that were claimed under one owner name."""

    def __init__(
        self, stores: Stores, detector: Detector, owner: str, leases: LeaseKeeper, times: AttemptTimes, file_writer: FileWriter
    ) -> None:
        """Set what the results depend on.

        :param leases: the leases that the owner holds. Nothing is written for images whose leases are lost.
        :param times: what the attempts of the owner have taken so far.
        :param file_writer: writes the files, and releases the images whose files cannot be written now.
        """
        self._stores, self._db = stores, stores.db
        self._detector, self._owner, self._leases = detector, owner, leases
        self._times, self._file_writer = times, file_writer

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
        with self._times.measure("write_ms", [image for image, _ in files]):
            self._file_writer.write(files)  # drops the leases of the images that it releases
        failpoints.reach("5-variants-written")
        leases = [(Lease(result.image_id, result.fence), result) for result in group_results]
        held = [replace(result, measured=self._times.read(lease)) for lease, result in leases if self._leases.holds(lease)]
        failpoints.reach("6-before-finish")
        stored = results.finish(self._db, self._owner, held)
        failpoints.reach("6-finished")
        self._publish({result.image_id: result.fence for result in held if result.image_id in stored and result.error is None})
        return stored

    def _success(self, image: Document, prepared: PreparedImage) -> Result:
        model = self._detector.info if image["work"]["detect"] else None
        fields = prepared.fields | {"model": model}
        return _result(image, fields, barcode=image["barcode"])

    def _publish(self, fences: dict[str, int]) -> None:
        """Publish the variants of done images, so that a plain file server can serve them.

        The results of these images are already stored, so a failure here must not affect the results or the claim.
        """
        try:
            publish(self._stores, fences)
        except Exception as error:  # noqa: BLE001 -- the web process serves the variants until the sweep publishes them
            _log.warning("the variants of done images were not published: %s", type(error).__name__, exc_info=error)


def _failure(image: Document, fault: Fault) -> Result:
    fields = {"model": None} if shown_fence(image) is None else options_of(image)
    return _result(image, fields, error=fault)


def _result(image: Document, fields: dict[str, Any], *, error: Fault | None = None, barcode: str | None = None) -> Result:
    stored = bool(image["work"].get("stored"))  # this claim or an earlier one has stored the original and verified it
    is_again = shown_fence(image) is not None
    return Result(image["_id"], image["work"]["fence"], fields, error, stored=stored, barcode=barcode, is_again=is_again)
