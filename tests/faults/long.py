"""The long run: ``python -m tests.faults.long --kills 300 --flushes 20 --mongo-kills 20 [--write docs/reliability.md]``."""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

from shared.ledger import audit
from tests.faults.fault_injector import FaultCounts, FaultInjector
from tests.faults.images import draw_crashing_image, draw_valid_image, make_decompression_bomb
from tests.faults.oracle import Verdict, verify, wait_until_terminal
from tests.faults.services import LEASE_S, FaultStack
from tests.faults.upload_load import UploadLoad

_BEGIN: Final = "<!-- long run: begin -->"
_END: Final = "<!-- long run: end -->"


def main() -> None:
    """Run, print the table, and end with 1 when a promise was broken or a wanted fault did not happen."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.long", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="SIGKILLs of our own processes (default: %(default)s)")
    parser.add_argument("--flushes", type=int, default=20, help="times that Redis is emptied (default: %(default)s)")
    parser.add_argument(
        "--mongo-kills", type=int, default=20, help="times that mongod is killed (default: %(default)s)"
    )
    parser.add_argument(
        "--pause", type=float, default=1.5, help="seconds between two faults, on average (default: %(default)s)"
    )
    parser.add_argument(
        "--limit", type=float, default=1500, help="seconds after which it gives up (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all choices (default: the time)")
    parser.add_argument("--write", type=Path, help="put the table between the marks of this page")
    given = parser.parse_args()
    wanted = FaultCounts(given.kills, given.flushes, given.mongo_kills, redis_others=5, disk_fills=5)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shelfsight-faults-", ignore_cleanup_errors=True) as folder:
        stack = FaultStack(Path(folder))
        try:
            stack.start()
            table, problems = _run(stack, wanted, given)
        finally:
            stack.stop()
    table += f"\n\nSeed {given.seed}, {time.monotonic() - began:.0f} s in all, {os.cpu_count()} cores, leases of {LEASE_S} s."
    sys.stdout.write("\n".join([table, *problems[:50], ""]))
    if given.write and not problems:
        _write(given.write, table)
    sys.exit(1 if problems else 0)


def _run(stack: FaultStack, wanted: FaultCounts, given: argparse.Namespace) -> tuple[str, list[str]]:
    load = UploadLoad(stack.url, given.seed, lambda: audit.backlog(stack.db).images)
    source = random.Random(given.seed)
    for poison in [draw_crashing_image(source, "jpg"), draw_crashing_image(source, "png"), make_decompression_bomb(source)] * 2:
        if poison.harm == "decoder_crash":
            stack.plan.poison(poison.sha256)
        load.plant([draw_valid_image(source), poison, draw_valid_image(source)])
    load.start()
    chaos = FaultInjector(stack, given.seed)
    last = chaos.run(wanted, given.pause, given.limit)
    missing = [f"wanted and did not happen: {chaos.missing(wanted)}"] if chaos.missing(wanted) else []
    try:
        settled_s = wait_until_terminal(stack, load, last)
    except AssertionError as error:
        return _table(chaos, Counter(stack.plan.killed()), load, verify(stack, load)), [str(error), *missing]
    verdict = verify(stack, load)
    verdict.settled_after_s = settled_s
    return _table(chaos, Counter(stack.plan.killed()), load, verdict), verdict.problems + missing


def _table(chaos: FaultInjector, at_points: Counter[str], load: UploadLoad, verdict: Verdict) -> str:
    rows = [
        (what.removeprefix("kill ") + " killed", number)
        for what, number in chaos.tally.items()
        if what.startswith("kill ")
    ]
    rows = sorted(rows) + [(f"killed at step {point}", number) for point, number in sorted(at_points.items())]
    rows += [("**SIGKILLs of our processes**", chaos.kills())]
    rows += sorted((what, number) for what, number in chaos.tally.items() if not what.startswith("kill "))
    rows += [("client's retries", load.retries.total())]
    outcome = [
        ("batches accepted", verdict.batches),
        ("images accepted", verdict.images),
        ("good images done", verdict.done),
        ("**lost**", verdict.lost),
        ("**doubled**", verdict.doubled),
        ("**innocents failed**", verdict.innocents_failed),
        ("poisoned images, each failed with its code", verdict.poison),
        ("files read, wrong", f"{verdict.files_read}, {verdict.files_wrong}"),
        ("all terminal after the last fault", f"{verdict.settled_after_s:.0f} s"),
    ]
    lines = ["| what happened | times |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    lines += ["", "| outcome | |", "|---|---|", *(f"| {name} | {value} |" for name, value in outcome)]
    return "\n".join(lines)


def _write(page: Path, table: str) -> None:
    before, _, rest = page.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}\n{table}\n{_END}{after}")


if __name__ == "__main__":
    main()
