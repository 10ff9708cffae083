"""An upload load as a simple script sends it: many small batches, each retried with the same Idempotency-Key until a 202.

With ``changes=True``, accepted batches are cancelled and reprocessed, some of their images are deleted or moved to another
store, and all of it is read continuously.
"""

import base64
import queue
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from shared.errors import StoreAway
from tests.faults.change_load import Changeable, ChangeLoad
from tests.faults.images import UploadImage, draw_valid_image
from tests.faults.readers import ReadableImages, Reader

AUGMENTATIONS: Final = ("horizontal_flip",)
"""What each upload requests."""
_REQUEST_TIMEOUT_S: Final = 15.0
_MAX_RETRY_DELAY_S: Final = 3.0
_RETRY_FOR_S: Final = 60.0
_READERS: Final = 2
_READ_PAUSE_S: Final = 0.2
_RETRYABLE: Final = {409, 429, 500, 502, 503, 504, 507}


@dataclass(frozen=True, slots=True)
class AcceptedBatch:
    """An accepted batch, and the images and the store that it was sent with."""

    batch_id: str
    images: list[UploadImage]
    store: str


def request_with_retries(client: httpx.Client, method: str, path: str) -> httpx.Response:
    """Send a request, and repeat it for up to a minute while it times out, cannot connect or is answered 503.

    :raises httpx.HTTPError: when there is no response for a minute, or when the response breaks off.
    """
    deadline = time.monotonic() + _RETRY_FOR_S
    while True:
        try:
            response = client.request(method, path)
            if response.status_code != 503 or time.monotonic() > deadline:
                return response
        except (httpx.TimeoutException, httpx.ConnectError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


class UploadLoad:
    """Uploads batches from several threads until ``finish`` is called. Every upload that has begun is retried until its 202."""

    def __init__(
        self,
        url: str,
        seed: int,
        count_pending: Callable[[], int],
        *,
        threads: int = 3,
        max_pending: int = 60,
        changes: bool = False,
        blobs_root: Path = Path(),
    ) -> None:
        """Upload to ``url``.

        :param seed: determines the images of the random batches.
        :param count_pending: returns the number of unfinished images; above ``max_pending`` no new batch is sent.
        :param changes: whether another thread changes accepted batches, and two others read them.
        :param blobs_root: the folder of the service's blobs, which is needed to compare what is read.
        """
        self._url, self._count_pending, self._max_pending = url, count_pending, max_pending
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.accepted: list[AcceptedBatch] = []
        self.retries: Counter[str] = Counter()
        self.rejections: list[str] = []
        self._enqueued: queue.SimpleQueue[list[UploadImage]] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(seed * 1000 + number),), daemon=True)
            for number in range(threads)
        ]
        self.changes = ChangeLoad(url)
        if changes:
            arguments = (random.Random(seed * 1000 + threads), self._changeable, self._stop)
            self._threads.append(threading.Thread(target=self.changes.run, args=arguments, daemon=True))
        self.readers = [Reader(url, blobs_root, self.changes.deleted.__contains__) for _ in range(_READERS if changes else 0)]
        for number, reader in enumerate(self.readers):
            choose = ReadableImages(url, random.Random(seed * 1000 + threads + 1 + number), self._changeable).choose
            self._threads.append(threading.Thread(target=reader.run, args=(choose, self._stop, _READ_PAUSE_S), daemon=True))

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def enqueue(self, images: list[UploadImage]) -> None:
        """Let one of the threads send these images as its next batch."""
        self._enqueued.put(images)

    def finish(self, within_s: float) -> bool:
        """Start no new requests and wait until the current ones have succeeded. Return False when that takes too long."""
        self._stop.set()
        deadline = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def send(self, images: list[UploadImage], store: str = "faults") -> AcceptedBatch:
        """Upload one batch, and retry until it is accepted."""
        key = uuid.uuid4().hex
        entries = [
            {
                "file": base64.b64encode(image.data).decode(),
                "timestamp": 1_700_000_000,
                "store_name": store,
                "camera_id": 1,
            }
            for image in images
        ]
        body = {"images": entries, "augmentations": list(AUGMENTATIONS), "detect": True}
        with httpx.Client(base_url=self._url, timeout=_REQUEST_TIMEOUT_S) as client:
            while True:
                delay, batch_id = self._try(client, body, key)
                if batch_id is not None:
                    batch = AcceptedBatch(batch_id, images, store)
                    with self._lock:
                        self.accepted.append(batch)
                    return batch
                time.sleep(delay)

    def _try(self, client: httpx.Client, body: dict[str, Any], key: str) -> tuple[float, str | None]:
        try:
            response = client.post("/upload_image_batch", json=body, headers={"Idempotency-Key": key})
        except httpx.HTTPError as error:
            self._count(type(error).__name__)
            return 0.3, None
        if response.status_code == 202:
            return 0, str(response.json()["batch_id"])
        self._count(str(response.status_code))
        if response.status_code == 500 or response.status_code not in _RETRYABLE:
            with self._lock:
                self.rejections.append(f"{response.status_code} {response.text[:200]}")
        if response.status_code not in _RETRYABLE:
            raise AssertionError(f"the batch was rejected: {response.status_code} {response.text[:500]}")
        return min(_MAX_RETRY_DELAY_S, float(response.headers.get("Retry-After", 1))), None

    def _changeable(self) -> list[Changeable]:
        """Return the batches of valid images. The others stay, so that the oracle sees how each harmful image ends."""
        with self._lock:
            valid = [batch for batch in self.accepted if all(image.expected_code is None for image in batch.images)]
        return [Changeable(batch.batch_id, len(batch.images)) for batch in valid]

    def _is_backlog_full(self) -> bool:
        try:
            return self._count_pending() > self._max_pending
        except StoreAway:  # MongoDB was just killed, and uploads must continue
            return False

    def _count(self, reason: str) -> None:
        with self._lock:
            self.retries[reason] += 1

    def _run(self, generator: random.Random) -> None:
        while not (self._stop.is_set() and self._enqueued.empty()):
            try:
                self.send(self._enqueued.get_nowait())
                continue
            except queue.Empty:
                pass
            if self._is_backlog_full():
                self._stop.wait(0.3)
                continue
            self.send([draw_valid_image(generator) for _ in range(generator.randint(1, 12))], f"store {generator.randint(1, 4)}")
