"""Measure how long passwords take to hash and to verify, alone and when many are verified at once."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from scripts.bench.auth_testbed import Testbed
from scripts.bench.extent import Extent
from scripts.bench.process_memory import measure_peak
from scripts.bench.report import Row, compare
from scripts.bench.timing import interleave, median, seconds
from shared.accounts.passwords import PasswordHasher
from shared.errors import Busy
from web.services import Services

_PASSWORD: Final = "five green kettles of rain"  # noqa: S105 -- it protects nothing
_CLIENTS: Final = 8
_MIB: Final = 1024 * 1024


def measure(testbed: Testbed, extent: Extent) -> list[Row]:
    """Time the hasher of a web front: one hash, verifications of right and wrong passwords, and of an unknown user."""
    services = Services(testbed.settings(is_on=True))
    rows = _measure(services.password_hasher, extent)
    services.close()
    return rows


def _measure(hasher: PasswordHasher, extent: Extent) -> list[Row]:
    stored = hasher.hash(_PASSWORD)
    calls: dict[str, Callable[[], object]] = {
        "hash": partial(hasher.hash, _PASSWORD),
        "right": partial(hasher.verify, stored, _PASSWORD),
        "wrong": partial(hasher.verify, stored, _PASSWORD + "!"),
        "unknown": partial(hasher.verify, None, _PASSWORD),
    }
    rounds = extent.choose(full=15, quick=5, smoke=1)
    ms = {name: 1000 * median(samples) for name, samples in interleave({name: partial(seconds, call) for name, call in calls.items()}, rounds).items()}
    began = time.process_time()
    hasher.verify(stored, _PASSWORD)
    cpu_ms = 1000 * (time.process_time() - began)
    return [
        Row("hashing a password", ms["hash"], "ms"),
        Row("verifying a password", ms["right"], "ms"),
        Row("verifying a password: CPU of all threads", cpu_ms, "ms"),
        compare("verifying a wrong password, of the right one", ms["wrong"], "ms", ms["right"]),
        compare("an unknown user, of a wrong password", ms["unknown"], "ms", ms["wrong"]),
        *_measure_together(hasher, stored, ms["right"]),
    ]


def _measure_together(hasher: PasswordHasher, stored: str, alone_ms: float) -> list[Row]:
    """Verify one password in many threads at once. The hasher computes only two hashes at the same time."""

    def verify() -> bool:
        try:
            return hasher.verify(stored, _PASSWORD)
        except Busy:
            return False

    verified: list[bool] = []
    with ThreadPoolExecutor(_CLIENTS) as threads:

        def run() -> None:
            verified.extend(job.result() for job in [threads.submit(verify) for _ in range(_CLIENTS)])

        began = time.perf_counter()
        extra_bytes = measure_peak(os.getpid(), run)
        elapsed_ms = 1000 * (time.perf_counter() - began)
    name = f"{_CLIENTS} passwords at once"
    return [
        compare(f"{name}, until the last is verified, of one after the other", elapsed_ms, "ms", _CLIENTS * alone_ms),
        Row(f"{name}: refused, because their turn did not come in time", verified.count(False), ""),
        Row(f"{name}: additional memory (a hash takes 64 MiB)", extra_bytes / _MIB, "MiB"),
    ]
