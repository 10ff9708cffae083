"""The long fault run: ``python -m tests.faults.long --kills 300 --flushes 20 --mongo-kills 20 [--write docs/reliability.md]``."""

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
    """Run, print the tables, and exit with 1 when a promise was broken or a wanted fault did not happen."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.long", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="number of SIGKILLs of our own processes (default: %(default)s)")
    parser.add_argument("--flushes", type=int, default=20, help="number of times that Redis is flushed (default: %(default)s)")
    parser.add_argument(
        "--mongo-kills", type=int, default=20, help="number of times that mongod is killed (default: %(default)s)"
    )
    parser.add_argument(
        "--replica-set",
        action="store_true",
        help="use a replica set with three members; its primary is killed, frozen, and stepped down, each as often as --mongo-kills says",
    )
    parser.add_argument(
        "--pause", type=float, default=1.5, help="average number of seconds between two faults (default: %(default)s)"
    )
    parser.add_argument(
        "--limit", type=float, default=1500, help="seconds after which no more faults are injected (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of all random choices (default: the current time)")
    parser.add_argument("--write", type=Path, help="replace the tables between the markers of this Markdown file")
    options = parser.parse_args()
    wanted = FaultCounts(options.kills, options.flushes, options.mongo_kills, redis_outages=5, disk_fills=5)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shelfsight-faults-", ignore_cleanup_errors=True) as folder:
        stack = FaultStack(Path(folder), with_replica_set=options.replica_set)
        try:
            stack.start()
            tables, problems = _run(stack, wanted, options)
        finally:
            stack.stop()
    tables += f"\n\nSeed {options.seed}, {time.monotonic() - began:.0f} s in all, {os.cpu_count()} cores, leases of {LEASE_S} s."
    sys.stdout.write("\n".join([tables, *problems[:50], ""]))
    if options.write and not problems:
        _replace_tables(options.write, tables)
    sys.exit(1 if problems else 0)


def _run(stack: FaultStack, wanted: FaultCounts, options: argparse.Namespace) -> tuple[str, list[str]]:
    load = UploadLoad(stack.url, options.seed, lambda: audit.backlog(stack.db).images, changes=True, blobs_root=stack.blobs_root)
    generator = random.Random(options.seed)
    for harmful in [draw_crashing_image(generator, "jpg"), draw_crashing_image(generator, "png"), make_decompression_bomb(generator)] * 2:
        if harmful.expected_code == "decoder_crash":
            stack.plan.crash_on(harmful.sha256)
        load.enqueue([draw_valid_image(generator), harmful, draw_valid_image(generator)])
    load.start()
    injector = FaultInjector(stack, options.seed)
    last = injector.run(wanted, options.pause, options.limit)
    missing = [f"wanted faults that did not happen: {injector.missing(wanted)}"] if injector.missing(wanted) else []
    try:
        settled_s = wait_until_terminal(stack, load, last)
    except AssertionError as error:
        return _format_tables(injector, Counter(stack.plan.killed()), load, verify(stack, load)), [str(error), *missing]
    verdict = verify(stack, load, cleaned=True)
    verdict.settled_after_s = settled_s
    return _format_tables(injector, Counter(stack.plan.killed()), load, verdict), verdict.problems + missing


def _format_tables(injector: FaultInjector, at_failpoints: Counter[str], load: UploadLoad, verdict: Verdict) -> str:
    rows = [
        (fault.removeprefix("kill ") + " killed", number)
        for fault, number in injector.counts.items()
        if fault.startswith("kill ")
    ]
    rows = sorted(rows) + [(f"killed at failpoint {point}", number) for point, number in sorted(at_failpoints.items())]
    rows += [("**SIGKILLs of our processes**", injector.kill_count())]
    rows += sorted((fault, number) for fault, number in injector.counts.items() if not fault.startswith("kill "))
    rows += [("retries of the client", load.retries.total() + load.changes.retries.total())]
    outcome = [
        ("batches accepted", verdict.batches),
        ("images accepted", verdict.images),
        ("images deleted", len(load.changes.deleted)),
        ("images moved to another store", len(load.changes.moved)),
        ("batches cancelled", sum(operation.action == "cancel" and operation.status == 202 for operation in load.changes.operations)),
        ("requests to reprocess a batch, with unknown outcome", _count_reprocessings(load)),
        ("images queued again", verdict.queued_again),
        ("images with a result read completely meanwhile", verdict.read_meanwhile),
        ("valid images done", verdict.done),
        ("valid images cancelled", verdict.cancelled),
        ("**lost**", verdict.lost),
        ("**doubled**", verdict.doubled),
        ("**valid images failed**", verdict.valid_failed),
        ("harmful images, each failed with its code", verdict.harmful),
        ("files read, wrong files", f"{verdict.files_read}, {verdict.files_wrong}"),
        ("time until all were terminal after the last fault", f"{verdict.settled_after_s:.0f} s"),
    ]
    lines = ["| fault | times |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    lines += ["", "| outcome | |", "|---|---|", *(f"| {name} | {value} |" for name, value in outcome)]
    return "\n".join(lines)


def _count_reprocessings(load: UploadLoad) -> str:
    statuses = Counter(operation.status for operation in load.changes.operations if operation.action == "reprocess")
    return f"{statuses[202]}, {statuses[None]}"


def _replace_tables(page: Path, tables: str) -> None:
    before, _, rest = page.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}\n{tables}\n{_END}{after}")


if __name__ == "__main__":
    main()
