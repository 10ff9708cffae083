"""Measure how fast images are found, and many of them tagged, in a database with a million images.

The parts are lists of images with each filter, in each order, far from the first page and with each pair of filters;
images that look alike; the rename of a tag of a tenth of the images; and tagging of 100,000 images by a filter. Lists
are compared with the query that somebody would write with pymongo, without a hint, and orjson.dumps of what it finds.
The service runs in the same process as these baselines, through WSGI. The exit code is 0 if every target is met and 1 if
a target is missed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

from scripts.bench import page_rates, search_filters, search_rates, search_similar, search_tag_writes, seed_database
from scripts.bench.extent import Extent, add_options
from scripts.bench.report import Report, Row
from scripts.bench.search_lists import Lists
from scripts.bench.search_pages import Pages
from scripts.bench.servers import Servers

PARTS: Final = ("filters", "sorts", "depth", "pairs", "similar", "rename", "bulk")
_BATCHES: Final = 31_250
_QUICK_BATCHES: Final = 3_125
_SMOKE_BATCHES: Final = 320
_DEPTH: Final = 0.9
_SMOKE_DEPTH: Final = 0.3  # so that the few images that are seeded fill a page behind it with some filters
_SHOWN: Final = 10


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench/search", description=__doc__)
    add_options(parser, quick="100,000 images and fewer rounds")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this part (can be repeated)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows, with all pairs, to this file as JSON")
    parser.add_argument(
        "--folder", type=Path, help="folder for the database, which needs 3 GB (default: the system's temporary folder)"
    )
    args = parser.parse_args()
    report = Report("scripts/bench/search", args.extent)
    with tempfile.TemporaryDirectory(prefix="shelfsight-bench-", dir=args.folder) as name:
        servers = Servers(Path(name), indexes=False)
        try:
            _measure(report, servers, args.extent, args.only or PARTS)
        finally:
            servers.stop()
    return report.finish(args.json)


def _measure(report: Report, servers: Servers, extent: Extent, parts: Collection[str]) -> None:
    batches = extent.choose(full=_BATCHES, quick=_QUICK_BATCHES, smoke=_SMOKE_BATCHES)
    rounds = extent.choose(full=15, quick=7, smoke=1)
    started = time.monotonic()
    seed_database.seed(servers.db, batches, report.log)
    report.log(f"seeded in {time.monotonic() - started:.0f} s")
    lists = Lists(page_rates.create_client(servers.settings), servers.db)
    pages, filters = Pages(lists), search_filters.create_filters(servers.db)
    images = f"{batches * seed_database.PER_BATCH:,} images"
    if "filters" in parts:
        report.add_part(f"Page 1 with a filter, {images}", lambda: search_rates.measure_single(pages, filters, rounds=rounds))
    if "sorts" in parts:
        some = [chosen for chosen in filters if chosen.name in search_filters.FOR_SORTS]
        report.add_part(f"Page 1 in each order, {images}", lambda: search_rates.measure_sorts(pages, some, rounds=rounds))
    if "depth" in parts:
        depth = extent.choose(full=_DEPTH, quick=_DEPTH, smoke=_SMOKE_DEPTH)
        report.add_part(
            f"Behind {depth:.0%} of {images}", lambda: search_rates.measure_depth(pages, filters, depth=depth, rounds=rounds)
        )
    if "pairs" in parts:
        few = extent.choose(full=3, quick=3, smoke=1)
        measured: list[Row] = []

        def measure() -> list[Row]:
            measured.extend(search_rates.measure_pairs(pages, filters, rounds=few, log=report.log))
            return measured

        report.add_part(f"Page 1 with two filters, {images}", measure, shown=_SHOWN)
        report.add_part(f"All pairs, {images}", lambda: search_rates.summarize_pairs(measured))
    if "similar" in parts:
        report.add_part(f"Similar images, {images}", lambda: search_similar.measure(lists, extent))
    if "rename" in parts:
        report.add_part("Rename of a tag", lambda: search_tag_writes.measure_rename(lists, rounds=rounds))
    if "bulk" in parts:
        report.add_part("Tagging of many images", lambda: search_tag_writes.measure_bulk(lists, servers, extent))


if __name__ == "__main__":
    sys.exit(main())
