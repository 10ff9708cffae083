"""Measure inspections by URL: cached ones, fresh ones beside Thumbor, and many who ask for the same. Two cores, one machine.

Exit code 0 when every target is met, 1 when one is missed.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

from scripts.bench import inspection_rates
from scripts.bench.report import Report
from scripts.bench.servers import Servers

PARTS = ("cached", "fresh", "together")


def main() -> int:
    """Run the bench; give the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench/inspect", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a minute, rougher figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part only (may be given again)")
    parser.add_argument("--folder", type=Path, help="put the data here, on the disk to be measured (default: the system's)")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    parts = given.only or PARTS
    report = Report("scripts/bench/inspect")
    with tempfile.TemporaryDirectory(prefix="shelfsight-bench-", dir=given.folder) as name, contextlib.ExitStack() as stack:
        report.say("drawing a picture, starting servers ...")
        servers = Servers(Path(name))
        stack.callback(servers.stop)
        stand = inspection_rates.Stand(servers, stack)
        if "cached" in parts:
            report.part("Cached answers", lambda: inspection_rates.cached(stand, quick=given.quick))
        if "fresh" in parts:
            report.part("Fresh pictures", lambda: inspection_rates.fresh(stand, quick=given.quick))
        if "together" in parts:
            report.part("One new URL, many who ask", lambda: inspection_rates.together(stand))
    return report.end(given.json)


if __name__ == "__main__":
    sys.exit(main())
