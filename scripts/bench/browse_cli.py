"""Measure how fast batches are listed in a database with a million images.

The parts are pages far from page 1, cursors with every filter, and one large page. The exit code is 0 if every target
is met and 1 if a target is missed.
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from scripts.bench import page_rates, seed_database
from scripts.bench.extent import Extent, add_options
from scripts.bench.report import Report
from scripts.bench.servers import Servers

_BATCHES = 31_250
_QUICK_BATCHES = 3_125
_SMOKE_BATCHES = 640
_DEPTH = 0.9
_SMOKE_DEPTH = 0.5  # so that the few batches hold three of each kind behind the cursor
_DELETED = 0.05


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench/browse", description=__doc__)
    add_options(parser, quick="100,000 images and fewer rounds; page numbers are reduced in proportion")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file as JSON")
    parser.add_argument(
        "--folder", type=Path, help="folder for the database, which needs 2 GB (default: the system's temporary folder)"
    )
    args = parser.parse_args()
    report = Report("scripts/bench/browse", args.extent)
    with tempfile.TemporaryDirectory(prefix="shelfsight-bench-", dir=args.folder) as name:
        servers = Servers(Path(name), indexes=False)
        try:
            _measure(report, servers, args.extent)
        finally:
            servers.stop()
    return report.finish(args.json)


def _measure(report: Report, servers: Servers, extent: Extent) -> None:
    batches = extent.choose(full=_BATCHES, quick=_QUICK_BATCHES, smoke=_SMOKE_BATCHES)
    rounds = extent.choose(full=25, quick=9, smoke=1)
    depth = extent.choose(full=_DEPTH, quick=_DEPTH, smoke=_SMOKE_DEPTH)
    started = time.monotonic()
    ids = seed_database.seed(servers.db, batches, report.log)
    report.log(f"seeded in {time.monotonic() - started:.0f} s")
    web = page_rates.create_client(servers.settings)
    images = f"{batches * seed_database.PER_BATCH:,} images"

    seeded = {"": batches, seed_database.STORE: page_rates.count_batches_of_store(servers.db)}

    def pages(when: str, left: int) -> None:
        listed = {"": left, seed_database.STORE: page_rates.count_batches_of_store(servers.db)}
        for store, count in listed.items():
            query = {"store_name": store} if store else {}
            numbers = page_rates.pages_to_measure(seeded[store], count)
            heading = f"Pages{' of one store' if store else ''}{when}: {count:,} batches"
            report.add_part(heading, partial(page_rates.measure_pages, web, query, numbers, count, rounds=rounds))

    pages("", batches)
    report.add_part(f"Cursors, {images}", lambda: page_rates.measure_cursors(web, ids, depth=depth, rounds=rounds))
    report.add_part("A large page", lambda: page_rates.measure_large_page(web, servers, rounds=rounds))
    report.log(f"deleting {_DELETED:.0%} of the batches")
    pages(f" after {_DELETED:.0%} were deleted", page_rates.delete_batches(servers.db, ids, _DELETED))


if __name__ == "__main__":
    sys.exit(main())
