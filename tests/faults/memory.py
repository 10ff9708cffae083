"""Measure the memory of one worker over many images: ``python -m tests.faults.memory --images 10000 [--write docs/reliability.md]``."""

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

PROCESS_KINDS: Final = ("pool child", "sandbox child", "parent")
MIB: Final = 1024 * 1024
_BEGIN: Final = "<!-- memory run: begin -->"
_END: Final = "<!-- memory run: end -->"
_BATCH_SIZE: Final = 20
_MAX_PENDING_BATCHES: Final = 3
"""Batches that wait while one is checked: enough to keep the worker busy, few enough to use little disk space."""
_EXOTIC_SHARE: Final = 0.3
_SIZES: Final = {(640, 480): 0.85, (1280, 960): 0.13, (4000, 3000): 0.02}
_IMAGES_PER_SIZE: Final = 12
_BATCH_TIMEOUT_S: Final = 900.0
_MAX_GROWTH: Final = 1.15
"""The maximal ratio of the median in the last tenth to that in the second tenth."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The memory of one process, in bytes, when ``images`` images were finished."""

    images: int
    rss: int
    pss: int


@dataclass(slots=True)
class MemorySamples:
    """The samples of a worker's processes by kind, and the pids of each kind."""

    samples: dict[str, list[Sample]] = field(default_factory=lambda: {kind: [] for kind in PROCESS_KINDS})
    pids: dict[str, set[int]] = field(default_factory=lambda: {kind: set() for kind in PROCESS_KINDS})

    def median(self, kind: str, begin: float, end: float) -> float:
        """Return the median resident memory, in bytes, between two fractions of all images."""
        samples = self.samples[kind]
        total = samples[-1].images
        return statistics.median(sample.rss for sample in samples if begin * total <= sample.images <= end * total)

    def slope(self, kind: str) -> float:
        """Return the growth of resident memory in bytes per image.

        It is the slope of a straight line through the medians of all tenths but the first. Medians are used because a few large
        images raise some samples by 80 MB.
        """
        tenth = self.samples[kind][-1].images / 10
        medians = [self.median(kind, number / 10, (number + 1) / 10) for number in range(1, 10)]
        return float(np.polyfit(tenth * np.arange(1, 10), medians, 1)[0])


@dataclass(slots=True)
class Outcome:
    """The results of the images. ``wrong`` is empty when each ended as expected."""

    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def images(self) -> int:
        """The number of finished images."""
        return self.done + self.failed.total()


def mix_images(number: int, seed: int) -> Iterator[UploadImage]:
    """Yield valid images of several sizes, mixed with all exotic and hostile files that the web front accepts."""
    generator = random.Random(seed)
    common = {size: [_encode_valid_image(index, size) for index in range(_IMAGES_PER_SIZE if size[0] < 4000 else 2)] for size in _SIZES}
    exotic = [
        UploadImage(case.data, SIGNATURES[kind], None if case.is_decodable else case.outcome)
        for case in build_corpus()
        if (kind := sniff(case.data[:32])) is not None
    ]
    for _ in range(number):
        size = generator.choices(list(_SIZES), list(_SIZES.values()))[0]
        yield generator.choice(exotic if generator.random() < _EXOTIC_SHARE else common[size])


def _encode_valid_image(seed: int, size: tuple[int, int]) -> UploadImage:
    return UploadImage(encode_image(draw_image(seed, size), "JPEG", quality=60), "jpg")


def run_images(stack: Stack, images: Iterator[UploadImage]) -> tuple[MemorySamples, Outcome]:
    """Send images in batches, check the result of each, and sample the worker's memory meanwhile."""
    memory, outcome, stopped = MemorySamples(), Outcome(), threading.Event()
    parent = psutil.Process(stack.pid("worker-1"))
    sampler = threading.Thread(target=_sample, args=(parent, memory, lambda: outcome.images, stopped), daemon=True)
    sampler.start()
    load = UploadLoad(stack.url, 0, lambda: 0)
    pending: deque[AcceptedBatch] = deque()
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        while batch := list(islice(images, _BATCH_SIZE)):
            pending.append(load.send(batch))
            if len(pending) > _MAX_PENDING_BATCHES:
                _check_batch(client, pending.popleft(), outcome)
        while pending:
            _check_batch(client, pending.popleft(), outcome)
    stopped.set()
    sampler.join()
    if len(memory.pids["pool child"]) != 1:
        outcome.wrong.append(f"the pool child was replaced: {memory.pids['pool child']}")
    return memory, outcome


def _sample(parent: psutil.Process, memory: MemorySamples, finished_images: Callable[[], int], stopped: threading.Event) -> None:
    while not stopped.wait(1.0):
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # a child that has just exited
                kind = _process_kind(process, parent)
                if kind is not None:
                    usage = process.memory_full_info()
                    memory.samples[kind].append(Sample(finished_images(), usage.rss, usage.pss))
                    memory.pids[kind].add(process.pid)


def pool_children(stack: Stack) -> set[int]:
    """Return the pids of the worker's current pool children."""
    parent = psutil.Process(stack.pid("worker-1"))
    pids = set()
    for process in parent.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if _process_kind(process, parent) == "pool child":
                pids.add(process.pid)
    return pids


def _process_kind(process: psutil.Process, parent: psutil.Process) -> str | None:
    if process == parent:
        return "parent"
    line = " ".join(process.cmdline())
    return "sandbox child" if "worker.sandbox.child" in line else "pool child" if "spawn_main" in line else None


def _check_batch(client: httpx.Client, accepted: AcceptedBatch, outcome: Outcome) -> None:
    """Wait until a batch is finished, compare the result of each image with the expected one, and delete the batch."""
    deadline = time.monotonic() + _BATCH_TIMEOUT_S
    while (batch := _read_batch(client, accepted))["finished_at"] is None:
        if time.monotonic() > deadline:
            raise AssertionError(f"{accepted.batch_id} was not finished within {_BATCH_TIMEOUT_S:.0f} s")
        time.sleep(0.2)
    for image, document in zip(accepted.images, batch["images"], strict=True):
        code = document["error"] and document["error"]["code"]
        if code is None:
            outcome.done += 1
        else:
            outcome.failed[code] += 1
        if code != image.expected_code or document["status"] != ("failed" if code else "done"):
            outcome.wrong.append(f"{document['id']}: {document['status']} {code} instead of {image.expected_code or 'done'}")
    response = request_with_retries(client, "DELETE", f"/image_batches/{accepted.batch_id}")
    if response.status_code != 404:  # 404: an earlier attempt has deleted the batch
        response.raise_for_status()


def _read_batch(client: httpx.Client, accepted: AcceptedBatch) -> dict[str, Any]:
    response = request_with_retries(client, "GET", f"/image_batches/{accepted.batch_id}")
    response.raise_for_status()
    batch: dict[str, Any] = response.json()
    return batch


def format_tables(memory: MemorySamples, outcome: Outcome) -> str:
    """Return the figures as two Markdown tables."""
    rows: dict[str, Callable[[str], str]] = {
        "median RSS in the second tenth": lambda kind: f"{memory.median(kind, 0.1, 0.2) / MIB:.0f} MB",
        "median RSS in the last tenth": lambda kind: f"{memory.median(kind, 0.9, 1.0) / MIB:.0f} MB",
        "**last tenth to second**": lambda kind: f"{memory.median(kind, 0.9, 1.0) / memory.median(kind, 0.1, 0.2):.3f}",
        "growth per 1,000 images": lambda kind: f"{memory.slope(kind) * 1000 / 1024:+.0f} KB",
        "peak RSS": lambda kind: f"{max(sample.rss for sample in memory.samples[kind]) / MIB:.0f} MB",
        "median PSS": lambda kind: f"{statistics.median(sample.pss for sample in memory.samples[kind]) / MIB:.0f} MB",
        "number of processes": lambda kind: f"{len(memory.pids[kind])}",
    }
    lines = [f"| | {' | '.join(PROCESS_KINDS)} |", "|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(figure(kind) for kind in PROCESS_KINDS)} |" for name, figure in rows.items()]
    results = [
        ("images", outcome.images),
        ("done", outcome.done),
        *((f"failed: `{code}`", number) for code, number in sorted(outcome.failed.items())),
        ("**ended differently than expected**", len(outcome.wrong)),
    ]
    return "\n".join([*lines, "", "| outcome | |", "|---|---|", *(f"| {name} | {value} |" for name, value in results)])


def main() -> None:
    """Run, print the tables, and exit with 1 when an image did not end as expected or the memory grew."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.memory", description=__doc__)
    parser.add_argument("--images", type=int, default=10_000, help="number of images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the mixture (default: %(default)s)")
    parser.add_argument("--write", type=Path, help="replace the tables between the markers of this Markdown file")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shelfsight-memory-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder))
        try:
            stack.start()
            memory, outcome = run_images(stack, mix_images(options.images, options.seed))
        finally:
            stack.stop()
    outcome.wrong += [
        f"the memory of the {kind} grew"
        for kind in PROCESS_KINDS
        if memory.median(kind, 0.9, 1) > _MAX_GROWTH * memory.median(kind, 0.1, 0.2)
    ]
    tables = f"{format_tables(memory, outcome)}\n\nSeed {options.seed}, {time.monotonic() - began:.0f} s in all, {os.cpu_count()} cores."
    sys.stdout.write("\n".join([tables, *outcome.wrong[:50], ""]))
    if options.write and not outcome.wrong:
        before, _, rest = options.write.read_text().partition(_BEGIN)
        _, _, after = rest.partition(_END)
        options.write.write_text(f"{before}{_BEGIN}\n{tables}\n{_END}{after}")
    sys.exit(1 if outcome.wrong else 0)


if __name__ == "__main__":
    main()
