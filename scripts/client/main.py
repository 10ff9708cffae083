"""Upload pictures in bulk: files, folders or a CSV manifest (path,timestamp,store_name,camera_id,barcode; UTF-8).

A picture that several rows of manifests name is sent once for each row that says something different of it: each is an
observation. A folder's picture that a manifest names too is sent as the manifest says.

Interrupt it (Ctrl-C lets the requests in flight finish; a second one ends at once) and run the same command again, within 24
hours: no picture is sent twice, also when files were added or removed meanwhile. A changed file is a new picture.

Exit codes: 0 all accepted (with --wait: and done), 1 some pictures were rejected or failed, 2 the command cannot be worked
with, 3 the service did not take everything, 4 the same upload is running already, 5 all that could be is accepted but not all
results came in time, 130 interrupted.
"""

import argparse
import hashlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from scripts.client.groups import Picture, UsageError, find
from scripts.client.journal import Busy, Journal
from scripts.client.send_group import GaveUp, Sender
from scripts.client.summary import BUSY, INTERRUPTED, UNUSABLE, Summary
from scripts.client.uploader import Answer, Group, Upload, groups

_OVERHEAD: Final = 64 * 1024
_OVERHEAD_EACH: Final = 2048
_KEY_LIVES_S: Final = 24 * 3600
_WAIT_S: Final = 300.0
_WAIT_EACH_S: Final = 2.0


class _Interrupted(Exception):
    """Ctrl-C, and what was in flight has come to its end."""


def main() -> int:
    """Upload what the arguments name."""
    given = _arguments()
    console = Console(stderr=True, highlight=False)
    summary = Summary()
    stop = threading.Event()
    try:
        sender = Sender(given.url, given.token, given.retry_for, stop)
        try:
            pictures = find(given.sources, store=given.store, camera=given.camera, timestamp=given.timestamp)
            if not pictures and not (given.resume and given.resume.exists()):
                raise UsageError("There are no pictures there.")
            summary.found = len(pictures)
            with Journal(given.resume, given.url.rstrip("/")) as journal:
                _run(pictures, sender, journal, summary, given, console, stop)
        finally:
            sender.close()
    except (UsageError, OSError) as error:
        console.print(f"scripts/upload: {error}", style="red", markup=False, soft_wrap=True)
        return UNUSABLE
    except Busy as error:
        console.print(f"scripts/upload: {error}", style="red", markup=False, soft_wrap=True)
        return BUSY
    except (KeyboardInterrupt, _Interrupted):
        console.print(f"Interrupted after {summary.accepted} pictures.{_again(given)}", markup=False, soft_wrap=True)
        return INTERRUPTED
    summary.show(console, given.url, _again(given), waited=given.wait)
    if given.json:
        print(summary.as_json())
    return summary.exit_code


def _run(
    pictures: list[Picture],
    sender: Sender,
    journal: Journal,
    summary: Summary,
    given: argparse.Namespace,
    console: Console,
    stop: threading.Event,
) -> None:
    """Send, and wait if asked to; the journal goes when there is nothing left to go on with."""
    for row in journal.answers:
        summary.count(row["batch_id"], row["accepted"], row["rejected"])
        summary.skipped += row["accepted"] + len(row["rejected"])
    old = [begun for begun in journal.pending.values() if begun.at < time.time() - _KEY_LIVES_S]
    if old:
        count = sum(len(begun.pictures) for begun in old)
        console.print(f"{count} pictures were in flight over 24 h ago; they are sent again, and may be there twice.", style="red")
    try:
        limits = sender.limits()
    except GaveUp as error:
        summary.gave_up = str(error)
        return
    most = min(given.batch_size, limits["max_images"])
    most_bytes = min(given.batch_bytes, limits["max_body_bytes"] - _OVERHEAD - _OVERHEAD_EACH * most)
    todo = list(groups(pictures, journal, most=most, most_bytes=most_bytes))
    upload = Upload(sender, journal, stop, limits["max_image_bytes"])
    with _progress(console, given) as progress:
        _send(upload, todo, summary, given, progress, console, stop)
        if summary.gave_up is None and given.wait:
            _wait(sender, summary, given.wait_for, progress)
    if summary.gave_up is None and summary.wait_over is None:
        journal.remove()


def _send(
    upload: Upload,
    todo: list[Group],
    summary: Summary,
    given: argparse.Namespace,
    progress: Progress,
    console: Console,
    stop: threading.Event,
) -> None:
    whole = sum(len(group.pictures) for group in todo)
    bar = progress.add_task("uploading", total=sum(group.size for group in todo), count="")
    sent = 0

    def count(group: Group, answer: Answer) -> None:
        nonlocal sent
        summary.count(answer.batch_id, answer.accepted, answer.rejected)
        sent += len(group.pictures)
        progress.update(bar, advance=group.size, count=f"{sent}/{whole}")

    with _finishing(upload, console, stop, given) as interrupted:
        summary.gave_up = upload.send(iter(todo), given.parallel, count)
    if interrupted.is_set():
        raise _Interrupted


@contextmanager
def _finishing(upload: Upload, console: Console, stop: threading.Event, given: argparse.Namespace) -> Iterator[threading.Event]:
    """Let Ctrl-C end the upload when what is in flight is answered and written down, and a second one at once."""
    interrupted = threading.Event()

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        if interrupted.is_set():
            begin = "\n\x1b[?25h" if console.is_terminal else ""  # below the bar, and with the cursor that it hides
            # Not by the console, nor by Python's own buffers: this signal may have come while they write the other line.
            os.write(2, os.fsencode(f"{begin}Ended at once.{_again(given)}\n"))
            os._exit(INTERRUPTED)  # what was begun is in the journal; the threads would be waited for
        interrupted.set()
        stop.set()
        console.print(f"Finishing {upload.in_flight} requests in flight; Ctrl-C again ends at once.")

    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # in the background of a shell
        yield interrupted
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _wait(sender: Sender, summary: Summary, wait_for: float | None, progress: Progress) -> None:
    seconds = _WAIT_S + _WAIT_EACH_S * summary.accepted if wait_for is None else wait_for
    until = time.monotonic() + seconds
    bar = progress.add_task("waiting for results", total=summary.accepted, count="")
    for batch_id, size in summary.batches.items():
        try:
            while "images" in (batch := sender.batch(batch_id, until)) and not batch["finished_at"] and time.monotonic() < until:
                time.sleep(0.2)  # the service may answer before it is finished, when too many wait
        except GaveUp as error:
            summary.waiting = summary.accepted - summary.done - summary.failed.total()
            summary.wait_over = f"The results could not be waited for: {error}."
            return
        if "images" in batch:
            summary.count_results(batch)
        else:
            summary.failed[batch.get("code", "not_found")] += size
        progress.update(bar, advance=size, count=f"{summary.done + summary.failed.total()}/{summary.accepted}")
    if summary.waiting:
        summary.wait_over = f"{summary.waiting} pictures have no result after {seconds:g} s: do the workers run? The page of the batch shows how far it is."


def _again(given: argparse.Namespace) -> str:
    """Say how to go on, where something is kept to go on with."""
    if not given.resume or not given.resume.exists():
        return ""
    return f" To go on: {shlex.join([os.environ.get('INVOKED_AS', 'scripts/upload'), *sys.argv[1:]])}"


def _progress(console: Console, given: argparse.Namespace) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=given.quiet, transient=False)


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
    resume = parser.add_mutually_exclusive_group()
    resume.add_argument("--resume", type=Path, metavar="FILE", help="what was sent and answered; removed when all is done (default: a file here, named for PATHs, --url, --store, --camera and --timestamp)")
    resume.add_argument("--no-resume", action="store_true", help="keep no such file; another run is another upload")
    parser.add_argument("--wait", action="store_true", help="wait for the results and sum them up")
    parser.add_argument("--wait-for", type=float, metavar="S", help=f"wait at most so many seconds; implies --wait (default: {_WAIT_S:.0f}, and {_WAIT_EACH_S:.0f} for each picture)")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    given = parser.parse_intermixed_args()
    given.wait = given.wait or given.wait_for is not None
    given.resume = None if given.no_resume else given.resume or _default_resume(given)
    return given


def _default_resume(given: argparse.Namespace) -> Path:
    """Name the resume file for what is uploaded, so that two uploads never share one; how it is cut does not matter."""
    what = (sorted(str(source.absolute()) for source in given.sources), given.url.rstrip("/"), given.store, given.camera, given.timestamp)
    return Path(f"shelfsight-{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}.upload.jsonl")


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
