"""Measures what the steps take in which the images of claims are processed, for the timelines of the images."""

import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from shared.ledger import claims
from shared.ledger.timelines import Measured
from shared.queue.leases import Lease
from shared.storage.mongo import Document


@dataclass(slots=True)
class _Attempt:
    """``claimed_at`` is the time of MongoDB's clock, and ``began`` is about the same time in ``time.monotonic`` seconds."""

    claimed_at: datetime | None
    began: float
    is_first: bool
    steps: dict[str, float] = field(default_factory=dict)


class AttemptTimes:
    """Measures the attempts for the images that one pipeline holds, from ``begin`` until ``drop``. It is thread-safe."""

    def __init__(self) -> None:
        self._attempts: dict[Lease, _Attempt] = {}
        self._lock = threading.Lock()

    def begin(self, images: Iterable[Document]) -> None:
        """Start to measure images that have just been claimed."""
        now = time.monotonic()
        begun = {
            claims.LEASES.lease(image): _Attempt(image["work"].get("claimed_at"), now, is_first="history" not in image) for image in images
        }
        with self._lock:
            self._attempts |= begun

    def drop(self, leases: Iterable[Lease]) -> None:
        """Forget attempts. What is measured for them from now on is ignored."""
        with self._lock:
            for lease in leases:
                self._attempts.pop(lease, None)

    @contextmanager
    def measure(self, step: str, images: Collection[Document]) -> Iterator[None]:
        """Add the duration of the body to a step, also if the body raises an error.

        :param step: one of ``shared.ledger.timelines.STEPS``.
        :param images: the images that the body works on. Each of them gets an equal share of the time.
        """
        began = time.perf_counter()
        try:
            yield
        finally:
            took_ms = (time.perf_counter() - began) * 1000
            with self._lock:
                for image in images:
                    attempt = self._attempts.get(claims.LEASES.lease(image))
                    if attempt is not None:
                        attempt.steps[step] = attempt.steps.get(step, 0.0) + took_ms / len(images)

    def read(self, lease: Lease) -> Measured:
        """Return what was measured for an attempt, as if it ended now. If it was dropped, everything is unknown."""
        now = time.monotonic()
        with self._lock:
            attempt = self._attempts.get(lease)
            if attempt is None:
                return Measured()
            ended = None if attempt.claimed_at is None else attempt.claimed_at + timedelta(seconds=now - attempt.began)
            return Measured(attempt.claimed_at, ended, dict(attempt.steps), attempt.is_first)
