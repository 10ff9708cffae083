"""Upload pictures in bulk: files, folders or a CSV manifest (path,timestamp,store_name,camera_id,barcode).

Interrupt it and run it again: what was answered is not sent twice. Exit codes: 0 all accepted (with --wait: and done),
1 some pictures were rejected or failed, 2 the command cannot be worked with, 3 the service did not take everything,
130 interrupted.
"""

import argparse
import json
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from scripts.client.journal import Journal
from scripts.client.plan import Batch, UsageError, cut, find
from scripts.client.send import GaveUp, Sender

_OVERHEAD = 64 * 1024
_SHOWN = 20


@dataclass
class Summary:
    """What became of an upload."""

    found: int = 0
    accepted: int = 0
    skipped: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list)
    batches: list[str] = field(default_factory=list)
    gave_up: str | None = None
    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)

    @property
    def exit_code(self) -> int:
        """The command's exit code."""
        if self.gave_up is not None:
            return 3
        return 1 if self.rejected or self.failed else 0


def main() -> int:
    """Upload what the arguments name."""
    given = _arguments()
    console = Console(stderr=True)
    try:
        pictures = find(given.sources, store=given.store, camera=given.camera, timestamp=given.timestamp)
        if not pictures:
            raise UsageError("There are no pictures there.")
    except (UsageError, OSError) as error:
        console.print(f"scripts/upload: {error}", style="red", markup=False)
        return 2
    stop = threading.Event()
    sender = Sender(given.url, given.token, given.retry_for, stop)
    summary = Summary(found=len(pictures))
    try:
        limits = sender.limits()
        most = min(given.batch_size, limits["max_images"])
        most_bytes = min(given.batch_bytes, limits["max_body_bytes"] - _OVERHEAD - 2048 * most)
        with Journal(given.resume) as journal, _progress(console, given) as progress:
            batches = list(cut(pictures, most=most, most_bytes=most_bytes, salt=f"{given.url} {journal.run}"))
            _send_all(batches, sender, journal, summary, given.parallel, progress, stop)
            if given.wait and summary.gave_up is None:
                _wait_all(sender, summary, progress)
        if summary.gave_up is None:
            given.resume.unlink(missing_ok=True)
    except KeyboardInterrupt:
        stop.set()
        again = shlex.join(["scripts/upload", *sys.argv[1:]])
        console.print(f"\nInterrupted after {summary.accepted} pictures. To go on: {again}", markup=False, soft_wrap=True)
        return 130
    except (GaveUp, KeyError, ValueError) as error:
        summary.gave_up = str(error)
    finally:
        stop.set()
        sender.close()
    _report(summary, console, given)
    return summary.exit_code


def _send_all(
    batches: list[Batch],
    sender: Sender,
    journal: Journal,
    summary: Summary,
    parallel: int,
    progress: Progress,
    stop: threading.Event,
) -> None:
    bar = progress.add_task("uploading", total=sum(batch.size for batch in batches), count="")
    todo: Iterator[Batch] = iter(batches)
    running: dict[Future[dict[str, Any]], Batch] = {}
    sent = 0
    with ThreadPoolExecutor(parallel) as pool:
        try:
            while True:
                while len(running) < parallel and (batch := next(todo, None)) is not None:
                    if batch.key in journal.answers:
                        _count(journal.answers[batch.key], batch, summary, resumed=True)
                        sent += len(batch.pictures)
                        progress.update(bar, advance=batch.size, count=f"{sent}/{summary.found}")
                    else:
                        running[pool.submit(sender.send, batch)] = batch
                if not running:
                    return
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    batch = running.pop(future)
                    row = _row(future.result(), batch)
                    journal.add(row)
                    _count(row, batch, summary, resumed=False)
                    sent += len(batch.pictures)
                    progress.update(bar, advance=batch.size, count=f"{sent}/{summary.found}")
        except BaseException:
            stop.set()
            raise


def _row(answer: dict[str, Any], batch: Batch) -> dict[str, Any]:
    """What the journal keeps of an answer: the batch's id, and every picture that was refused with its reason."""
    if answer["http"] == 202:
        bad = [(image["index"], image["errors"][0]) for image in answer["images"] if image["status"] == "rejected"]
        said = [{"path": str(batch.pictures[at].path), "code": wrong["code"], "detail": wrong["detail"]} for at, wrong in bad]
        return {"key": batch.key, "batch_id": answer["batch_id"], "accepted": answer["total"], "rejected": said}
    by_index: dict[int, dict[str, Any]] = {}
    for wrong in answer.get("errors", []):
        place = wrong["pointer"].strip("/").split("/")[0]
        if place.isdigit():
            by_index.setdefault(int(place), wrong)
    everything = {"code": answer.get("code", "refused"), "detail": answer.get("detail", f"HTTP {answer['http']}")}
    said = []
    for at, picture in enumerate(batch.pictures):
        wrong = by_index.get(at, everything)
        said.append({"path": str(picture.path), "code": wrong["code"], "detail": wrong["detail"]})
    return {"key": batch.key, "batch_id": None, "accepted": 0, "rejected": said}


def _count(row: dict[str, Any], batch: Batch, summary: Summary, *, resumed: bool) -> None:
    summary.accepted += row["accepted"]
    summary.rejected += row["rejected"]
    summary.skipped += len(batch.pictures) if resumed else 0
    if row["batch_id"]:
        summary.batches.append(row["batch_id"])


def _wait_all(sender: Sender, summary: Summary, progress: Progress) -> None:
    bar = progress.add_task("waiting for results", total=summary.accepted, count="")
    for batch_id in summary.batches:
        while (batch := sender.finished(batch_id)) is None:
            time.sleep(0.2)
        for image in batch["images"]:
            if image["status"] == "done":
                summary.done += 1
                summary.labels.update({found["label"] for found in image["detections"]})
            else:
                summary.failed[(image["error"] or {}).get("code", image["status"])] += 1
        progress.update(bar, advance=batch["total"], count=f"{summary.done + summary.failed.total()}/{summary.accepted}")


def _progress(console: Console, given: argparse.Namespace) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=given.quiet, transient=False)


def _report(summary: Summary, console: Console, given: argparse.Namespace) -> None:
    for wrong in summary.rejected[:_SHOWN]:
        console.print(f"rejected  {wrong['path']}: {wrong['code']}: {wrong['detail']}", style="red", markup=False, soft_wrap=True)
    if len(summary.rejected) > _SHOWN:
        console.print(f"... and {len(summary.rejected) - _SHOWN} more; --json lists all", style="red")
    table = Table(show_header=False, box=None)
    table.add_row("pictures found", str(summary.found))
    table.add_row("accepted", f"{summary.accepted} in {len(summary.batches)} batches" + (f" ({summary.skipped} in an earlier run)" if summary.skipped else ""))
    table.add_row("rejected", str(len(summary.rejected)))
    if given.wait:
        table.add_row("done", str(summary.done))
        table.add_row("failed", ", ".join(f"{n} {code}" for code, n in summary.failed.most_common()) or "0")
        table.add_row("seen on", ", ".join(f"{label} {n}" for label, n in summary.labels.most_common(12)) or "nothing")
    console.print(table)
    if summary.gave_up:
        console.print(f"Not everything was taken: {summary.gave_up}. Run the same command again to go on.", style="red", markup=False)
    for batch_id in summary.batches[:3]:
        console.print(f"look at   {given.url.rstrip('/')}/batches/{batch_id}", soft_wrap=True)
    if given.json:
        said = {name: getattr(summary, name) for name in ("found", "accepted", "skipped", "rejected", "batches", "done", "gave_up")}
        print(json.dumps(said | {"failed": dict(summary.failed), "labels": dict(summary.labels), "exit_code": summary.exit_code}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/upload", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, metavar="PATH", help="pictures, folders, or .csv manifests")
    parser.add_argument("--url", default="http://127.0.0.1:5000", help="the service (default: %(default)s)")
    parser.add_argument("--token", help="sent as a bearer token, where the service asks for one")
    parser.add_argument("--store", default="default", help="store_name where no manifest gives one (default: %(default)s)")
    parser.add_argument("--camera", default="upload", help="camera_id where no manifest gives one (default: %(default)s)")
    parser.add_argument("--timestamp", help="RFC 3339 time where no manifest gives one (default: each file's own)")
    parser.add_argument("--batch-size", type=_at_least_one, default=32, metavar="N", help="pictures a batch (default: %(default)s)")
    parser.add_argument("--batch-bytes", type=_at_least_one, default=16 * 1024 * 1024, metavar="N", help="bytes a batch (default: 16 MiB)")
    parser.add_argument("--parallel", type=_at_least_one, default=2, metavar="N", help="batches at once (default: %(default)s)")
    parser.add_argument("--retry-for", type=float, default=300.0, metavar="S", help="patience with one batch (default: %(default)s s)")
    parser.add_argument("--resume", type=Path, default=Path("shelfsight.upload.jsonl"), metavar="FILE", help="what was answered; removed when all is done (default: %(default)s)")
    parser.add_argument("--wait", action="store_true", help="wait for the results and sum them up")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args()


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
