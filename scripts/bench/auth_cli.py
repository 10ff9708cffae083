"""Measure what access control costs: authentication alone and in a request, rates, revocation, passwords, and signed URLs.

The exit code is 0 if every target is met and 1 if a target is missed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from scripts.bench import auth_rates, password_rates, revocation_times, signed_list_times
from scripts.bench.auth_testbed import Testbed
from scripts.bench.extent import add_options
from scripts.bench.report import Report
from scripts.bench.servers import Servers

PARTS = ("authentication", "gate", "rates", "reads", "revocation", "passwords", "signed-lists")


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench/auth", description=__doc__)
    add_options(parser, quick="run fewer rounds; this takes half a minute and is less accurate")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file as JSON")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this part (can be repeated)")
    parser.add_argument("--folder", type=Path, help="folder for the database (default: the system's temporary folder)")
    args = parser.parse_args()
    parts, extent = args.only or PARTS, args.extent
    report = Report("scripts/bench/auth", extent)
    with tempfile.TemporaryDirectory(prefix="shelfsight-bench-", dir=args.folder) as name:
        servers = Servers(Path(name))
        try:
            testbed = Testbed(servers)
            if "authentication" in parts:
                report.add_part("Authentication", lambda: auth_rates.measure_authentication(testbed, extent))
            if "gate" in parts:
                report.add_part("The gate in a request", lambda: auth_rates.measure_gate(testbed, extent))
            if "rates" in parts:
                report.add_part("Rates", lambda: auth_rates.measure_rates(testbed, extent))
            if "reads" in parts:
                report.add_part("Reads, and invalid credentials", lambda: auth_rates.measure_reads(testbed, extent))
            if "revocation" in parts:
                rounds = extent.choose(full=5, quick=2, smoke=1)
                report.add_part("Revocation", lambda: revocation_times.measure(testbed, rounds=rounds))
            if "passwords" in parts:
                report.add_part("Passwords", lambda: password_rates.measure(testbed, extent))
            if "signed-lists" in parts:
                report.add_part("Signed URLs in a list", lambda: signed_list_times.measure(testbed, extent, report.log))
        finally:
            servers.stop()
    return report.finish(args.json)


if __name__ == "__main__":
    sys.exit(main())
