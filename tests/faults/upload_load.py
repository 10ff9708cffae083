"""An upload script as people write them: many small batches, and blind retries with the same Idempotency-Key until a 202."""

import base64
import queue
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx

from shared.errors import StoreAway
from tests.faults.images import UploadImage, draw_valid_image

_REQUEST_TIMEOUT_S: Final = 15.0
_MAX_RETRY_DELAY_S: Final = 3.0
_RETRY_FOR_S: Final = 60.0
_RETRYABLE: Final = {409, 429, 500, 502, 503, 504, 507}


@dataclass(frozen=True, slots=True)
class AcceptedBatch:
    """An accepted batch and what was in it."""

    batch_id: str
    pictures: list[UploadImage]


def request_with_retries(client: httpx.Client, method: str, path: str) -> httpx.Response:
    """Ask again, for a minute, when a stall kept the answer away; any other answer is the answer.

    :raises httpx.HTTPError: there was none for a minute, or it broke off.
    """
    until = time.monotonic() + _RETRY_FOR_S
    while True:
        try:
            answer = client.request(method, path)
            if answer.status_code != 503 or time.monotonic() > until:
                return answer
        except (httpx.TimeoutException, httpx.ConnectError):
            if time.monotonic() > until:
                raise
        time.sleep(0.5)


class UploadLoad:
    """Uploads from a few threads until told to stop; what was begun is brought to its 202."""

    def __init__(
        self, url: str, seed: int, waiting: Callable[[], int], *, threads: int = 3, most_waiting: int = 60
    ) -> None:
        """Take where to; ``waiting`` counts the images not done yet, above ``most_waiting`` nothing new is sent."""
        self._url, self._waiting, self._most = url, waiting, most_waiting
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.sent: list[AcceptedBatch] = []
        self.retries: Counter[str] = Counter()
        self.refused: list[str] = []
        self._planted: queue.SimpleQueue[list[UploadImage]] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(seed * 1000 + number),), daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def plant(self, pictures: list[UploadImage]) -> None:
        """Have one of the threads send these as its next batch."""
        self._planted.put(pictures)

    def finish(self, within_s: float) -> bool:
        """Begin nothing new and wait for the answers that are still out; False when that took too long."""
        self._stop.set()
        until = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def send(self, pictures: list[UploadImage], store: str = "faults") -> AcceptedBatch:
        """Upload one batch, however often that takes."""
        key = uuid.uuid4().hex
        images = [
            {
                "file": base64.b64encode(one.data).decode(),
                "timestamp": 1_700_000_000,
                "store_name": store,
                "camera_id": 1,
            }
            for one in pictures
        ]
        body = {"images": images, "augmentations": ["horizontal_flip"], "detect": True}
        with httpx.Client(base_url=self._url, timeout=_REQUEST_TIMEOUT_S) as client:
            while True:
                wait, batch_id = self._try(client, body, key)
                if batch_id is not None:
                    sent = AcceptedBatch(batch_id, pictures)
                    with self._lock:
                        self.sent.append(sent)
                    return sent
                time.sleep(wait)

    def _try(self, client: httpx.Client, body: dict[str, Any], key: str) -> tuple[float, str | None]:
        try:
            answer = client.post("/upload_image_batch", json=body, headers={"Idempotency-Key": key})
        except httpx.HTTPError as error:
            self._count(type(error).__name__)
            return 0.3, None
        if answer.status_code == 202:
            return 0, str(answer.json()["batch_id"])
        self._count(str(answer.status_code))
        if answer.status_code == 500 or answer.status_code not in _RETRYABLE:
            with self._lock:
                self.refused.append(f"{answer.status_code} {answer.text[:200]}")
        if answer.status_code not in _RETRYABLE:
            raise AssertionError(f"refused for good: {answer.status_code} {answer.text[:500]}")
        return min(_MAX_RETRY_DELAY_S, float(answer.headers.get("Retry-After", 1))), None

    def _is_enough(self) -> bool:
        try:
            return self._waiting() > self._most
        except StoreAway:  # MongoDB was just killed: uploads go on, that is the point
            return False

    def _count(self, what: str) -> None:
        with self._lock:
            self.retries[what] += 1

    def _run(self, source: random.Random) -> None:
        while not (self._stop.is_set() and self._planted.empty()):
            try:
                self.send(self._planted.get_nowait())
                continue
            except queue.Empty:
                pass
            if self._is_enough():
                self._stop.wait(0.3)
                continue
            self.send([draw_valid_image(source) for _ in range(source.randint(1, 12))], f"store {source.randint(1, 4)}")
