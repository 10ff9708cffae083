"""Deletes and moves images of accepted batches as a client does: each request is repeated until the service has confirmed it."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from shared.ids import image_id

_REQUEST_TIMEOUT_S: Final = 15.0
_RETRY_S: Final = 0.5
_RETRYABLE: Final = {429, 502, 503, 504}
_NEWEST: Final = 20
"""Images of so many of the newest batches are changed, because workers still process some of them."""
STORES: Final = ("store 1", "store 2", "moved 1", "moved 2")


@dataclass(frozen=True, slots=True)
class Changeable:
    """An accepted batch, and its number of images."""

    batch_id: str
    images: int


class ChangeLoad:
    """Deletes and moves images, one after the other. A client is not thread-safe: only one thread uses it."""

    def __init__(self, url: str) -> None:
        """Change images of the service at ``url``."""
        self._url = url
        self.deleted: set[str] = set()
        self.moved: dict[str, str] = {}
        """The stores of the images that were moved, by image id."""
        self.retries: Counter[str] = Counter()
        self.rejections: list[str] = []

    def delete(self, name: str) -> None:
        """Delete an image."""
        self.deleted.add(name)
        self._repeat("DELETE", f"/images/{name}", None, {204, 404})  # 404: an earlier attempt has deleted it

    def move(self, name: str, store: str) -> None:
        """Move an image to another store."""
        self.moved[name] = store
        self._repeat("PATCH", f"/images/{name}", {"store_name": store}, {200})

    def standing(self, batch: Changeable) -> list[int]:
        """Return the indexes of the images of a batch that have not been deleted."""
        return [index for index in range(batch.images) if image_id(batch.batch_id, index) not in self.deleted]

    def run(self, generator: random.Random, accepted: Callable[[], Sequence[Changeable]], stop: threading.Event) -> None:
        """Delete and move random images of the newest batches, with pauses, until ``stop`` is set."""
        while not stop.wait(generator.uniform(0.2, 1.2)):
            batches = [batch for batch in accepted()[-_NEWEST:] if self.standing(batch)]
            if not batches:
                continue
            batch = generator.choice(batches)
            name = image_id(batch.batch_id, generator.choice(self.standing(batch)))
            if generator.random() < 0.5:
                self.delete(name)
            else:
                self.move(name, generator.choice(STORES))

    def _repeat(self, method: str, path: str, body: dict[str, Any] | None, confirmed: set[int]) -> None:
        while True:
            try:
                response = httpx.request(method, self._url + path, json=body, timeout=_REQUEST_TIMEOUT_S)
            except httpx.HTTPError as error:
                self.retries[type(error).__name__] += 1
            else:
                if response.status_code in confirmed:
                    return
                self.retries[str(response.status_code)] += 1
                if response.status_code not in _RETRYABLE:
                    self.rejections.append(f"{method} {path}: {response.status_code} {response.text[:200]}")
            time.sleep(_RETRY_S)
