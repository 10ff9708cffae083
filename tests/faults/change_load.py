"""Changes accepted batches as clients do: cancels and reprocesses them, and deletes and moves single images.

Each request is repeated until the service has confirmed it. Only a request to reprocess is sent once, because a second one
would process everything once more.
"""

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
_CANCELLED: Final = 3
"""One of so many of the newest batches is cancelled, because older ones are usually finished."""
_AUGMENTATIONS: Final[tuple[list[str] | None, ...]] = (None, ["horizontal_flip"], ["grayscale"], ["equalize", "horizontal_flip"], [])
STORES: Final = ("store 1", "store 2", "moved 1", "moved 2")


@dataclass(frozen=True, slots=True)
class Changeable:
    """An accepted batch, and its number of images."""

    batch_id: str
    images: int


@dataclass(frozen=True, slots=True)
class Operation:
    """A request to cancel or to reprocess a batch, and the status of its response. None means that its outcome is unknown."""

    action: str
    batch_id: str
    body: dict[str, Any]
    status: int | None


class ChangeLoad:
    """Changes batches and images, one after the other. A client is not thread-safe: only one thread uses it."""

    def __init__(self, url: str) -> None:
        """Change images of the service at ``url``."""
        self._url = url
        self.deleted: set[str] = set()
        self.moved: dict[str, str] = {}
        """The stores of the images that were moved, by image id."""
        self.operations: list[Operation] = []
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

    def cancel(self, batch_id: str) -> None:
        """Cancel a batch. A response of 409 says that it is finished, or that an earlier attempt has cancelled it."""
        self.operations.append(Operation("cancel", batch_id, {}, None))  # the oracle must know it even if it is not confirmed
        status = self._repeat("POST", f"/image_batches/{batch_id}/cancel", {}, {202, 404, 409})
        self.operations[-1] = Operation("cancel", batch_id, {}, status)

    def reprocess(self, batch_id: str, only: str, augmentations: list[str] | None) -> None:
        """Request once to process images of a batch again."""
        body = {"only": only} | ({} if augmentations is None else {"augmentations": augmentations})
        status = self._send("POST", f"/image_batches/{batch_id}/reprocess", body, {202, 404, 409})
        self.operations.append(Operation("reprocess", batch_id, body, status))

    def is_cancelled(self, batch_id: str) -> bool:
        """Return whether images of a batch may be cancelled."""
        return any(operation.action == "cancel" and operation.status != 404 for operation in self.operations_on(batch_id))

    def operations_on(self, batch_id: str) -> list[Operation]:
        """Return the requests for a batch, in their order."""
        return [operation for operation in self.operations if operation.batch_id == batch_id]

    def standing(self, batch: Changeable) -> list[int]:
        """Return the indexes of the images of a batch that have not been deleted."""
        return [index for index in range(batch.images) if image_id(batch.batch_id, index) not in self.deleted]

    def run(self, generator: random.Random, accepted: Callable[[], Sequence[Changeable]], stop: threading.Event) -> None:
        """Change random images and batches of the newest batches, with pauses, until ``stop`` is set."""
        while not stop.wait(generator.uniform(0.2, 1.2)):
            batches = [batch for batch in accepted()[-_NEWEST:] if self.standing(batch)]
            if not batches:
                continue
            chance = generator.random()
            if chance < 0.12:
                self.cancel(generator.choice(batches[-_CANCELLED:]).batch_id)
                continue
            batch = generator.choice(batches)
            if chance < 0.5:
                self.reprocess(batch.batch_id, generator.choice(("all", "all", "failed", "cancelled")), generator.choice(_AUGMENTATIONS))
                continue
            name = image_id(batch.batch_id, generator.choice(self.standing(batch)))
            if chance < 0.75:
                self.delete(name)
            else:
                self.move(name, generator.choice(STORES))

    def _repeat(self, method: str, path: str, body: dict[str, Any] | None, confirmed: set[int]) -> int:
        while (status := self._send(method, path, body, confirmed)) is None:
            time.sleep(_RETRY_S)
        return status

    def _send(self, method: str, path: str, body: dict[str, Any] | None, confirmed: set[int]) -> int | None:
        """Send a request, and return the status of its response if it is one of ``confirmed``."""
        try:
            response = httpx.request(method, self._url + path, json=body, timeout=_REQUEST_TIMEOUT_S)
        except httpx.HTTPError as error:
            self.retries[type(error).__name__] += 1
            return None
        if response.status_code in confirmed:
            return response.status_code
        self.retries[str(response.status_code)] += 1
        if response.status_code not in _RETRYABLE:
            self.rejections.append(f"{method} {path}: {response.status_code} {response.text[:200]}")
        return None
