"""Measure inspections by URL on two cores: cached results, new images, and many requests for one URL.

The exit code is 0 if every target is met and 1 if a target is missed.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

from scripts.bench import inspection_rates
from scripts.bench.extent import add_options
from scripts.bench.report import Report
from scripts.bench.servers import Servers

PARTS = ("cached", "fresh", "together")


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench/inspect", description=__doc__)
    add_options(parser, quick="run fewer rounds; this takes a minute and is less accurate")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file as JSON")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this part (can be repeated)")
    parser.add_argument("--folder", type=Path, help="folder for the data; it must be on the disk to measure (default: the system's temporary folder)")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    parts = args.only or PARTS
    report = Report("scripts/bench/inspect", args.extent)
    with tempfile.TemporaryDirectory(prefix="shelfsight-bench-", dir=args.folder) as name, contextlib.ExitStack() as stack:
        report.log("drawing an image, starting servers ...")
        servers = Servers(Path(name))
        stack.callback(servers.stop)
        testbed = inspection_rates.Testbed(servers, stack)
        if "cached" in parts:
            report.add_part("Cached responses", lambda: inspection_rates.measure_cached(testbed, args.extent))
        if "fresh" in parts:
            report.add_part("New images", lambda: inspection_rates.measure_fresh(testbed, args.extent))
        if "together" in parts:
            report.add_part("Concurrent requests for one new URL", lambda: inspection_rates.measure_together(testbed))
    return report.finish(args.json)


if __name__ == "__main__":
    sys.exit(main())
