"""Measure whether costs grow with the number of images that are kept.

Each operation of the service is measured in databases with different numbers of processed images of 20,000 stores, in
turn: accepting, claiming, finishing and closing a batch, lists, a deletion, probes, metrics, and a tick of the sweep. The
documents are as the service writes them, but there are no image files. The exit code is 0 if no operation takes more than
twice as long as with the smallest number, and 1 otherwise.
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from scripts.bench import growth_rates, growth_seed, seed_database
from scripts.bench.extent import Extent, add_options
from scripts.bench.growth_rates import Subject
from scripts.bench.report import Report
from scripts.bench.servers import Servers
from shared import settings

_SIZES = (100_000, 1_000_000)
_LARGEST = 10_000_000
_QUICK_SIZES = (20_000, 200_000)
_SMOKE_SIZES = (640, 1_920)


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench/growth", description=__doc__)
    add_options(parser, quick="20,000 and 200,000 images (default: 100,000 and 1,000,000), and fewer rounds")
    parser.add_argument("--full", action="store_true", help="also 10,000,000 images, which takes 20 minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file as JSON")
    parser.add_argument(
        "--folder",
        type=Path,
        help="folder for the databases, which need 3 GB, or 25 GB with --full (default: the system's temporary folder)",
    )
    args = parser.parse_args()
    if args.full and args.extent is not Extent.FULL:
        parser.error("--full cannot be used with --quick or --smoke")
    sizes = args.extent.choose(full=_SIZES, quick=_QUICK_SIZES, smoke=_SMOKE_SIZES)
    report = Report("scripts/bench/growth", args.extent)
    with tempfile.TemporaryDirectory(prefix="shelfsight-bench-", dir=args.folder) as name:
        servers = Servers(Path(name), indexes=False)
        try:
            _measure(report, servers, (*sizes, _LARGEST) if args.full else sizes, args.extent)
        finally:
            servers.stop()
    return report.finish(args.json)


def _measure(report: Report, servers: Servers, sizes: tuple[int, ...], extent: Extent) -> None:
    rounds = extent.choose(full=25, quick=9, smoke=1)
    subjects = [_create_subject(report, servers, images) for images in sizes]
    parts = {
        "Accept and process a batch": growth_rates.process_batch,
        "Lists by page": growth_rates.read_pages,
        "Lists by cursor": growth_rates.read_by_cursor,
        "Deletion": growth_rates.delete_batch,
        "Probes and metrics": growth_rates.read_state,
        "The sweep": growth_rates.sweep_once,
    }
    for heading, step in parts.items():
        report.add_part(heading, partial(growth_rates.measure, subjects, step, rounds))
    stores = extent.choose(full=growth_seed.STORES, quick=growth_seed.STORES, smoke=100)
    report.log(f"accepting images of {stores:,} stores")
    for subject in subjects:
        growth_rates.let_stores_wait(subject.db, stores)
    report.add_part(
        "Many stores wait", partial(growth_rates.measure, subjects, growth_rates.work_for_many_stores, rounds)
    )


def _create_subject(report: Report, servers: Servers, images: int) -> Subject:
    """Fill a database of its own, and create the service that uses it."""
    mongo = servers.mongo.model_copy(update={"database": f"bench_{images}"})
    blobs = servers.blobs / str(images)
    blobs.mkdir()
    started = time.monotonic()
    ids = growth_seed.seed(mongo, images // seed_database.PER_BATCH, report.log)
    report.log(f"{images:,} images seeded in {time.monotonic() - started:.0f} s")
    app_settings = servers.settings.model_copy(
        # Each tick of the sweep cleans up, so all ticks do the same work.
        update={"mongo": mongo, "blobs": settings.Blobs(root=blobs), "sweep": settings.Sweep(clean_interval_s=1e-3)}
    )
    return Subject.create(images, ids, app_settings)


if __name__ == "__main__":
    sys.exit(main())
