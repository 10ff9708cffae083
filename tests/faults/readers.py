"""Reads what the service shows of images that have been processed, and finds out whether all of it belongs to one result."""

import hashlib
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx

from shared.storage.blob_keys import image_prefix
from tests.faults.change_load import Changeable

_TIMEOUT_S: Final = 30.0
_NEWEST: Final = 40
_REMEMBERED: Final = 400
_AWAY: Final = {502, 503, 504}
_SHOWN: Final = {"queued", "processing", "done"}
_PER_PAGE: Final = 100
_ALWAYS: Final = ("thumb", "boxes")
_FIELDS: Final = ("finished_at", "augmentations", "detections", "model")
"""Fields that each result sets."""


class Reader:
    """Reads images of a service on this machine, each of which has had a successful result. ``problems`` says what was wrong.

    Requests that are not answered, because a process was killed, and responses that MongoDB is away, are no problem.
    """

    def __init__(self, url: str, blobs_root: Path, is_deleted: Callable[[str], bool] = lambda _: False) -> None:
        """Read from the service at ``url``.

        :param blobs_root: the folder of its blobs.
        :param is_deleted: whether somebody has asked for the deletion of an image, which may be missing then.
        """
        self._client = httpx.Client(base_url=url, timeout=_TIMEOUT_S)
        self._root, self._is_deleted = blobs_root, is_deleted
        self.problems: list[str] = []
        self.read = 0
        """The number of images that were read completely, while no new result was stored."""

    def run(self, choose: Callable[[], Sequence[str]], stop: threading.Event, pause_s: float = 0.0) -> None:
        """Read images until ``stop`` is set.

        :param choose: returns the ids of the images to read next.
        """
        while not stop.is_set():
            for image_id in choose():
                try:
                    self.look(image_id)
                except Exception as error:  # noqa: BLE001 -- otherwise, the test would not notice the end of this thread
                    self.problems.append(f"{image_id}: {error!r}")
            if stop.wait(pause_s or 0.01):
                break
        self._client.close()

    def look(self, image_id: str) -> None:
        """Read an image with all its files, and the page of its batch, once."""
        before = self._document(image_id)
        if before is None:
            return
        on_disk = self._files(image_id)
        names = [*_ALWAYS, *(made["name"] for made in before["augmentations"])]
        served = {name: self._get(f"/uploads/{image_id}/{name}.jpg") for name in names}
        original = self._get(before["file_path"] if before["content_type"] == "image/jpeg" else f"/uploads/{image_id}.png")
        rendition = self._get(f"/uploads/{image_id}.jpg")
        page = self._get(f"/batches/{before['batch_id']}")
        after = self._document(image_id)
        if after is None or None in (original, rendition, page, *served.values()):
            return
        if {response.status_code for response in (original, rendition) if response is not None} != {200}:
            self._report(image_id, "its original or rendition is not served")
        elif original is not None and hashlib.sha256(original.content).hexdigest() != before["sha256"]:
            self._report(image_id, "other bytes are served as its original")
        if page is not None and before["index"] < _PER_PAGE and f'src="/uploads/{image_id}/thumb.jpg"' not in page.text:
            self._report(image_id, "the page of its batch does not show its picture")
        is_same = all(before[name] == after[name] for name in _FIELDS)
        self._compare(image_id, {name: response for name, response in served.items() if response is not None}, on_disk, is_same=is_same)
        self.read += is_same

    def _compare(self, image_id: str, served: dict[str, httpx.Response], on_disk: dict[str, dict[str, bytes]], *, is_same: bool) -> None:
        """Compare files with those on the disk, of which a folder may have been deleted or added meanwhile."""
        statuses = {name: response.status_code for name, response in served.items() if response.status_code != 200 and (is_same or name in _ALWAYS)}
        if statuses:
            self._report(image_id, f"files of the shown result are not served: {statuses}")
            return
        found = {name: response.content for name, response in served.items() if response.status_code == 200}
        results = [*on_disk.values(), *self._files(image_id).values()]
        if is_same:
            belongs = any(_made(found) == _made(files) and found.items() <= files.items() for files in results)
        else:
            belongs = all(any(files.get(name) == data for files in results) for name, data in found.items())
        if not belongs:
            self._report(image_id, f"the files {sorted(found)} do not belong to one result")

    def _document(self, image_id: str) -> dict[str, Any] | None:
        response = self._get(f"/images/{image_id}")
        if response is None:
            return None
        if response.status_code != 200:
            self._report(image_id, f"{response.status_code} {response.text[:200]}")
            return None
        document: dict[str, Any] = response.json()
        if document["status"] not in _SHOWN or document["error"] is not None or not document["width"] or not document["finished_at"]:
            self._report(image_id, f"its result is not shown: {document}")
        return document

    def _get(self, path: str) -> httpx.Response | None:
        try:
            response = self._client.get(path)
        except httpx.HTTPError:
            return None
        return None if response.status_code in _AWAY else response

    def _files(self, image_id: str) -> dict[str, dict[str, bytes]]:
        """Return the files of an image by the name of their folder and their own."""
        found: dict[str, dict[str, bytes]] = {}
        with suppress(FileNotFoundError):  # deleted meanwhile
            for folder in (self._root / image_prefix(image_id)).iterdir():
                with suppress(FileNotFoundError):
                    files = folder.iterdir() if folder.name.isdecimal() else ()
                    found[folder.name] = {path.stem: path.read_bytes() for path in files}
        return found

    def _report(self, image_id: str, problem: str) -> None:
        if not self._is_deleted(image_id):
            self.problems.append(f"{image_id}: {problem}")


class ReadableImages:
    """Finds images that have been done, among those of the newest batches."""

    def __init__(self, url: str, generator: random.Random, batches: Callable[[], Sequence[Changeable]]) -> None:
        """Choose from the batches that ``batches`` returns."""
        self._url, self._random, self._batches = url, generator, batches
        self._done: deque[str] = deque(maxlen=_REMEMBERED)

    def choose(self) -> list[str]:
        """Return the ids of up to two images. Each was done at some time, so it has a result from then on."""
        batches = self._batches()[-_NEWEST:]
        if batches:
            path = f"/image_batches/{self._random.choice(batches).batch_id}"
            with suppress(httpx.HTTPError):
                response = httpx.get(self._url + path, timeout=_TIMEOUT_S)
                if response.status_code == 200:
                    self._done.extend(image["id"] for image in response.json()["images"] if image["status"] == "done")
        return self._random.sample(list(self._done), min(2, len(self._done)))


def _made(files: dict[str, bytes]) -> set[str]:
    """Return the names of the augmentations among files."""
    return set(files) - {*_ALWAYS, "rendition"}
