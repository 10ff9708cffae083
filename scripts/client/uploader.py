"""Upload many groups of images, several at the same time.

The pending groups of earlier runs are sent first, then the images that no earlier run sent.
"""

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from scripts.client import local_files
from scripts.client.groups import Image, split_into_groups
from scripts.client.journal import Journal
from scripts.client.send_group import GaveUp, Sender, image_index

_BODY_OVERHEAD: Final = 64 * 1024
_IMAGE_OVERHEAD: Final = 16 * 1024
"""Upper bounds on the bytes of a multipart body that do not belong to image files: ``_BODY_OVERHEAD`` for the whole
body, plus ``_IMAGE_OVERHEAD`` for each image in it."""


@dataclass(frozen=True, slots=True)
class Group:
    """Images that are sent in one request, with one Idempotency-Key.

    ``pending`` holds the images that an earlier run recorded for this key; it is None for a new group.
    """

    key: str
    images: list[Image]
    pending: list[Image] | None = None

    @property
    def size(self) -> int:
        """The total size of the images in bytes."""
        return sum(image.size for image in self.images)


@dataclass(slots=True)
class GroupResult:
    """The result of a group: the batch id, the number of accepted images, and the rejected images with their errors."""

    batch_id: str | None = None
    accepted: int = 0
    rejected: list[dict[str, str]] = field(default_factory=list)
    refused_indexes: list[int] = field(default_factory=list)
    """The indexes of the images in the request that the service has rejected."""


def plan_groups(images: list[Image], journal: Journal, *, max_images: int, max_bytes: int) -> Iterator[Group]:
    """Yield the groups to send.

    The pending groups of earlier runs come first, then new groups with the images that no earlier run sent. An image in
    a pending group is left out if its file was deleted or changed. The rest of the group keeps its key. If the service
    has already accepted the whole group, it therefore responds with ``idempotency_mismatch`` instead of storing the
    images twice.
    """
    pending = set()
    for key, earlier in journal.pending.items():
        pending |= {image.identity for image in earlier.images}
        unchanged = [image for image in earlier.images if image.is_unchanged()]
        if unchanged:
            yield Group(key, unchanged, earlier.images)
    new = (image for image in images if image.identity not in pending and not journal.is_answered(image))
    for group in split_into_groups(new, max_images=max_images, max_bytes=max_bytes):
        yield Group(f"upload-{uuid.uuid4().hex}", group)


def body_limits(limits: dict[str, int], max_images: int, max_bytes: int) -> tuple[int, int]:
    """Return how many images, and how many bytes of them, a request has at most, by the limits of the service and of the user."""
    images = min(max_images, limits["max_images"])
    return images, min(max_bytes, limits["max_body_bytes"] - _BODY_OVERHEAD - _IMAGE_OVERHEAD * images)


class Upload:
    """One run of the command, which sends many groups."""

    def __init__(self, sender: Sender, journal: Journal, stop: threading.Event, max_image_bytes: int) -> None:
        """Create an upload.

        :param stop: once this event is set, no further group is sent, and the requests in progress are completed.
        """
        self._sender, self._journal, self._stop, self._max_bytes = sender, journal, stop, max_image_bytes
        self._running: dict[Future[GroupResult], Group] = {}

    @property
    def in_flight(self) -> int:
        """The number of requests that have not been answered yet."""
        return len(self._running)

    def send(self, groups: Iterator[Group], parallel: int, on_result: Callable[[Group, GroupResult], None]) -> str | None:
        """Send groups, ``parallel`` at the same time; call ``on_result`` with each result in the caller's thread.

        :returns: the first error because of which the upload ended early; None if there was no error, even if ``stop``
            was set.
        """
        problem = None
        with ThreadPoolExecutor(parallel) as pool:
            while True:
                while not self._stop.is_set() and len(self._running) < parallel and (group := next(groups, None)) is not None:
                    self._running[pool.submit(self._send_group, group)] = group
                if not self._running:
                    return problem
                finished, _ = wait(self._running, return_when=FIRST_COMPLETED)
                for future in finished:
                    group = self._running.pop(future)
                    try:
                        on_result(group, future.result())
                    except (GaveUp, OSError) as error:
                        problem = problem or str(error)

    def _send_group(self, group: Group) -> GroupResult:
        """Send one group, and record its result in the journal before returning."""
        try:
            return self._send_and_record(group)
        except BaseException:
            # Set the event in this thread. In the caller's thread, the signal handler, which also sets the event, could
            # interrupt this call and then wait forever for the event's lock.
            self._stop.set()
            raise

    def _send_and_record(self, group: Group) -> GroupResult:
        readable: list[tuple[Image, bytes]] = []
        unreadable: list[dict[str, str]] = []
        for image in group.images:
            try:
                readable.append(self._read(image))
            except OSError as error:
                unreadable.append(_rejection(image, "unreadable", error.strerror or str(error)))
            except _UnsendableError as error:
                unreadable.append(_rejection(image, error.code, str(error)))
        if not readable:
            return GroupResult(rejected=unreadable)
        images = [image for image, _ in readable]
        if group.pending is None:
            self._journal.record_start(group.key, images)
        body = self._sender.send(group.key, readable)
        if group.pending is not None and body.get("code") == "idempotency_mismatch":
            result = GroupResult(accepted=len(group.pending))  # the earlier run's request was accepted with all its images
        else:
            result = parse_result(body, images)
            if group.pending not in (None, images):
                self._journal.record_start(group.key, images)  # from now on, the key belongs to these images only
        self._journal.record_result(group.key, asdict(result))
        return replace(result, rejected=result.rejected + unreadable)

    def _read(self, image: Image) -> tuple[Image, bytes]:
        """Read an image's file.

        :returns: the image with the current size and modification time of its file, and the bytes of the file.
        :raises OSError: when the file cannot be read.
        :raises _UnsendableError: when the file cannot be sent.
        """
        with local_files.opened(image.path) as file:
            before = os.fstat(file.fileno())
            if before.st_size > self._max_bytes:  # checked before reading, so that no huge file is read into memory
                raise _UnsendableError("image_too_large", f"The image has {before.st_size} bytes; at most {self._max_bytes} are allowed.")
            data = file.read(before.st_size + 1)
            after = os.fstat(file.fileno())
        if len(data) != before.st_size or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise _UnsendableError("changed", "The file changed while it was read; upload it again when it is complete.")
        current = replace(image, size=before.st_size, mtime_ns=before.st_mtime_ns)
        try:
            current.metadata  # noqa: B018 -- computed here, where an error affects only this image
        except ValueError as error:
            raise _UnsendableError("bad_timestamp", f"{error} Set --timestamp, or list the file with a timestamp in a manifest.") from None
        return current, data


class _UnsendableError(Exception):
    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def parse_result(body: dict[str, Any], images: list[Image]) -> GroupResult:
    """Return the result in the body that ``Sender.send`` has returned for a request with ``images``."""
    if "batch_id" in body and body["http"] == 202:
        errors = [(image["index"], image["errors"][0]) for image in body["images"] if image["status"] == "rejected"]
        rejected = [_rejection(images[index], error["code"], error["detail"]) for index, error in errors]
        return GroupResult(body["batch_id"], body["total"], rejected, [index for index, _ in errors])
    by_index: dict[int, dict[str, Any]] = {}
    for error in body.get("errors", []):
        if (index := image_index(error)) is not None:
            by_index.setdefault(index, error)
    whole_request = {"code": body.get("code", "refused"), "detail": body.get("detail", f"HTTP {body['http']}")}
    rejected = []
    for index, image in enumerate(images):
        error = by_index.get(index, whole_request)
        rejected.append(_rejection(image, error["code"], error["detail"]))
    return GroupResult(rejected=rejected, refused_indexes=list(range(len(images))))


def _rejection(image: Image, code: str, detail: str) -> dict[str, str]:
    return {"path": str(image.path), "code": code, "detail": detail}
