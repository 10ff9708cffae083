"""The memory of one worker over many pictures: ``python -m tests.faults.memory --pictures 10000 [--write docs/reliability.md]``."""

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import psutil

from shared.media_types import SIGNATURES, sniff
from tests.faults.images import UploadImage
from tests.faults.upload_load import AcceptedBatch, UploadLoad, request_with_retries
from tests.support.crafted_images import draw_image, encode_image
from tests.support.image_corpus import build_corpus
from tests.support.service_stack import Stack

PROCESS_KINDS: Final = ("pool child", "helper", "parent")
MIB: Final = 1024 * 1024
_BEGIN: Final = "<!-- memory run: begin -->"
_END: Final = "<!-- memory run: end -->"
_BATCH_SIZE: Final = 20
_MAX_PENDING_BATCHES: Final = 3
"""Batches that wait while one is looked at: enough that the worker never rests, few enough that little disk is taken."""
_EXOTIC_SHARE: Final = 0.3
_SIZES: Final = {(640, 480): 0.85, (1280, 960): 0.13, (4000, 3000): 0.02}
_IMAGES_PER_SIZE: Final = 12
_BATCH_TIMEOUT_S: Final = 900.0
_MAX_GROWTH: Final = 1.15
"""Of the last tenth beside the second."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory of one process at a moment, after so many pictures."""

    pictures: int
    rss: int
    pss: int


@dataclass(slots=True)
class MemorySamples:
    """What the processes of a worker took, by kind, and the pids that each kind has had."""

    samples: dict[str, list[Sample]] = field(default_factory=lambda: {kind: [] for kind in PROCESS_KINDS})
    pids: dict[str, set[int]] = field(default_factory=lambda: {kind: set() for kind in PROCESS_KINDS})

    def median(self, kind: str, begin: float, end: float) -> float:
        """Give the median resident memory, in bytes, between two shares of all pictures."""
        samples = self.samples[kind]
        total = samples[-1].pictures
        return statistics.median(one.rss for one in samples if begin * total <= one.pictures <= end * total)

    def slope(self, kind: str) -> float:
        """Give the growth of resident memory in bytes a picture.

        A straight line through the medians of all tenths but the first: a few large pictures lift some samples by 80 MB.
        """
        tenth = self.samples[kind][-1].pictures / 10
        medians = [self.median(kind, number / 10, (number + 1) / 10) for number in range(1, 10)]
        return float(np.polyfit(tenth * np.arange(1, 10), medians, 1)[0])


@dataclass(slots=True)
class Outcome:
    """What became of the pictures. ``wrong`` is empty when each ended as it should."""

    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def pictures(self) -> int:
        """Those that have ended."""
        return self.done + self.failed.total()


def mix_images(number: int, seed: int) -> Iterator[UploadImage]:
    """Draw good pictures of many sizes and, among them, every exotic and hostile form that the front accepts."""
    source = random.Random(seed)
    common = {size: [_encode_valid_image(one, size) for one in range(_IMAGES_PER_SIZE if size[0] < 4000 else 2)] for size in _SIZES}
    exotic = [
        UploadImage(form.data, SIGNATURES[kind], None if form.is_good else form.outcome)
        for form in build_corpus()
        if (kind := sniff(form.data[:32])) is not None
    ]
    for _ in range(number):
        size = source.choices(list(_SIZES), list(_SIZES.values()))[0]
        yield source.choice(exotic if source.random() < _EXOTIC_SHARE else common[size])


def _encode_valid_image(seed: int, size: tuple[int, int]) -> UploadImage:
    return UploadImage(encode_image(draw_image(seed, size), "JPEG", quality=60), "jpg")


def run_images(stack: Stack, pictures: Iterator[UploadImage]) -> tuple[MemorySamples, Outcome]:
    """Send pictures batch by batch, see what becomes of each, and sample the worker's memory all the while."""
    memory, outcome, over = MemorySamples(), Outcome(), threading.Event()
    parent = psutil.Process(stack.pid("worker-1"))
    sampler = threading.Thread(target=_sample, args=(parent, memory, lambda: outcome.pictures, over), daemon=True)
    sampler.start()
    load = UploadLoad(stack.url, 0, lambda: 0)
    waiting: deque[AcceptedBatch] = deque()
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        while batch := list(islice(pictures, _BATCH_SIZE)):
            waiting.append(load.send(batch))
            if len(waiting) > _MAX_PENDING_BATCHES:
                _check_batch(client, waiting.popleft(), outcome)
        while waiting:
            _check_batch(client, waiting.popleft(), outcome)
    over.set()
    sampler.join()
    if len(memory.pids["pool child"]) != 1:
        outcome.wrong.append(f"the pool child was replaced: {memory.pids['pool child']}")
    return memory, outcome


def _sample(parent: psutil.Process, memory: MemorySamples, pictures: Callable[[], int], over: threading.Event) -> None:
    while not over.wait(1.0):
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # a helper that just ended
                kind = _process_kind(process, parent)
                if kind is not None:
                    used = process.memory_full_info()
                    memory.samples[kind].append(Sample(pictures(), used.rss, used.pss))
                    memory.pids[kind].add(process.pid)


def pool_children(stack: Stack) -> set[int]:
    """Give the pids of the worker's pool children, just now."""
    parent = psutil.Process(stack.pid("worker-1"))
    found = set()
    for process in parent.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if _process_kind(process, parent) == "pool child":
                found.add(process.pid)
    return found


def _process_kind(process: psutil.Process, parent: psutil.Process) -> str | None:
    if process == parent:
        return "parent"
    line = " ".join(process.cmdline())
    return "helper" if "worker.sandbox.child" in line else "pool child" if "spawn_main" in line else None


def _check_batch(client: httpx.Client, sent: AcceptedBatch, outcome: Outcome) -> None:
    """Wait until a batch has ended, compare each of its images with what was sent, and delete it."""
    until = time.monotonic() + _BATCH_TIMEOUT_S
    while (batch := _read_batch(client, sent))["finished_at"] is None:
        if time.monotonic() > until:
            raise AssertionError(f"{sent.batch_id} did not end within {_BATCH_TIMEOUT_S:.0f} s")
        time.sleep(0.2)
    for picture, image in zip(sent.pictures, batch["images"], strict=True):
        code = image["error"] and image["error"]["code"]
        if code is None:
            outcome.done += 1
        else:
            outcome.failed[code] += 1
        if code != picture.harm or image["status"] != ("failed" if code else "done"):
            outcome.wrong.append(f"{image['id']}: {image['status']} {code} instead of {picture.harm or 'done'}")
    deleted = request_with_retries(client, "DELETE", f"/image_batches/{sent.batch_id}")
    if deleted.status_code != 404:  # else an earlier try took place
        deleted.raise_for_status()


def _read_batch(client: httpx.Client, sent: AcceptedBatch) -> dict[str, Any]:
    answer = request_with_retries(client, "GET", f"/image_batches/{sent.batch_id}")
    answer.raise_for_status()
    batch: dict[str, Any] = answer.json()
    return batch


def format_tables(memory: MemorySamples, outcome: Outcome) -> str:
    """Write the figures as two tables."""
    rows: dict[str, Callable[[str], str]] = {
        "median RSS in the second tenth": lambda kind: f"{memory.median(kind, 0.1, 0.2) / MIB:.0f} MB",
        "median RSS in the last tenth": lambda kind: f"{memory.median(kind, 0.9, 1.0) / MIB:.0f} MB",
        "**last tenth to second**": lambda kind: f"{memory.median(kind, 0.9, 1.0) / memory.median(kind, 0.1, 0.2):.3f}",
        "growth per 1,000 pictures": lambda kind: f"{memory.slope(kind) * 1000 / 1024:+.0f} KB",
        "peak RSS": lambda kind: f"{max(one.rss for one in memory.samples[kind]) / MIB:.0f} MB",
        "median PSS": lambda kind: f"{statistics.median(one.pss for one in memory.samples[kind]) / MIB:.0f} MB",
        "processes that were it": lambda kind: f"{len(memory.pids[kind])}",
    }
    lines = [f"| | {' | '.join(PROCESS_KINDS)} |", "|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(figure(kind) for kind in PROCESS_KINDS)} |" for name, figure in rows.items()]
    ends = [
        ("pictures", outcome.pictures),
        ("done", outcome.done),
        *((f"failed: `{code}`", number) for code, number in sorted(outcome.failed.items())),
        ("**ended otherwise than they should**", len(outcome.wrong)),
    ]
    return "\n".join([*lines, "", "| outcome | |", "|---|---|", *(f"| {name} | {value} |" for name, value in ends)])


def main() -> None:
    """Run, print the tables, and end with 1 when a picture did not end as it should."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.memory", description=__doc__)
    parser.add_argument("--pictures", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the mixture (default: %(default)s)")
    parser.add_argument("--write", type=Path, help="put the tables between the marks of this page")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shelfsight-memory-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder))
        try:
            stack.start()
            memory, outcome = run_images(stack, mix_images(given.pictures, given.seed))
        finally:
            stack.stop()
    outcome.wrong += [
        f"the memory of the {kind} grew"
        for kind in PROCESS_KINDS
        if memory.median(kind, 0.9, 1) > _MAX_GROWTH * memory.median(kind, 0.1, 0.2)
    ]
    text = f"{format_tables(memory, outcome)}\n\nSeed {given.seed}, {time.monotonic() - began:.0f} s in all, {os.cpu_count()} cores."
    sys.stdout.write("\n".join([text, *outcome.wrong[:50], ""]))
    if given.write and not outcome.wrong:
        before, _, rest = given.write.read_text().partition(_BEGIN)
        _, _, after = rest.partition(_END)
        given.write.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")
    sys.exit(1 if outcome.wrong else 0)


if __name__ == "__main__":
    main()
