"""Measure what the workers do to a picture: the network, the whole work, the service beside a bare loop, other servers.

Exit code 0 when every target is met, 1 when one is missed.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from scripts.bench.report import Report

PARTS = ("network", "whole", "memory", "service", "serving")


def main() -> int:
    """Run the bench; give the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench/vision", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a few minutes, rougher figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part only (may be given again)")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: one thread, as in a worker
    parts = given.only or PARTS
    from scripts.bench import seeing, service, serving  # noqa: PLC0415 -- after the line above

    report = Report("scripts/bench/vision")
    with tempfile.TemporaryDirectory(prefix="shelfsight-bench-") as name:
        folder = Path(name)
        headings = {
            "network": ("Detection alone, 8 pictures at once, one thread", lambda: seeing.network(quick=given.quick)),
            "whole": ("Whole work on a JPEG of 1280x960, one core", lambda: seeing.whole(quick=given.quick)),
            "memory": ("Memory of a worker", lambda: seeing.memory(quick=given.quick)),
            "service": ("The service beside a bare loop, two workers", lambda: service.measure(folder, quick=given.quick)),
            "serving": ("Served by HTTP, two cores", lambda: serving.measure(folder, quick=given.quick)),
        }
        for part in parts:
            report.part(*headings[part])
    return report.end(given.json)


if __name__ == "__main__":
    sys.exit(main())
