"""Upload images in bulk from files, folders and CSV manifests.

A manifest is a CSV file in UTF-8 with the columns path, timestamp, store_name, camera_id, barcode and filename, of which
only path is required. Commas, semicolons or tabs separate the columns. A timestamp is an RFC 3339 time or Unix seconds.
Other columns are sent too, and the service keeps them with the image, but a column that may be a misspelled one is
refused. An image that several manifest rows name is uploaded once for each row with different metadata, because each row
is a separate observation. An image that is found in a folder and also named in a manifest is uploaded only with the
metadata from the manifest.

In a folder, files with the endings of the supported formats are uploaded. Links to folders are left out, and so are
hidden folders and those in which file servers keep thumbnails, snapshots and deleted files (@eaDir, #recycle,
lost+found). To upload such a folder, name it. The summary says what was left out.

A service whose access is restricted needs an API key with the scope images:upload; --wait also needs the scope
images:read. The key is read from --api-key, --api-key-file or the environment variable SHELFSIGHT_API_KEY. If several are
set, an option has priority. An access token can be used in place of a key, but it expires after some minutes.

A proxy that the environment names (http_proxy, https_proxy, no_proxy) is used, but never for a service on this machine.

To resume an interrupted upload, run the same command again within 24 hours. No image is uploaded twice, even if files
were added or removed in the meantime. A file that has changed counts as a new image. With an API key of another account,
an image whose response was lost may be stored twice. On Ctrl-C, the command waits for the responses to the requests in
progress, then exits; on a second Ctrl-C, it exits immediately.

Exit codes:
  0    all images were accepted (with --wait: all images are done)
  1    some images were rejected or failed, or some files or folders could not be read
  2    the command line, a manifest or the resume file is invalid
  3    the service did not accept all images
  4    the same upload is already running
  5    all images were accepted or rejected, but not all results arrived: they took too long, or the API key may not read them
  130  the upload was interrupted
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
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from scripts.client.credentials import FILE_OPTION, OPTION, VARIABLE, find_api_key, without_key
from scripts.client.files import DEFAULTS, Found, find_images
from scripts.client.groups import Image, UsageError
from scripts.client.journal import AlreadyRunning, Journal
from scripts.client.send_group import GaveUp, Sender
from scripts.client.summary import ALREADY_RUNNING, INTERRUPTED, USAGE_ERROR, Summary, describe, escape
from scripts.client.uploader import Group, GroupResult, Upload, plan_groups

_BODY_OVERHEAD: Final = 64 * 1024
_IMAGE_OVERHEAD: Final = 16 * 1024
"""Upper bounds on the bytes of a multipart body that do not belong to image files: ``_BODY_OVERHEAD`` for the whole
body, plus ``_IMAGE_OVERHEAD`` for each image in it."""
_KEY_LIFETIME_S: Final = 24 * 3600
_WAIT_S: Final = 300.0
_WAIT_PER_IMAGE_S: Final = 2.0


class _Interrupted(Exception):
    """Ctrl-C was pressed, and the requests that were in progress have been completed."""


def main() -> int:
    """Run the upload that the command line describes.

    :returns: the exit code.
    """
    arguments = _parse_arguments()
    console = Console(stderr=True, highlight=False)
    summary = Summary()
    stop = threading.Event()
    try:
        api_key = find_api_key(arguments.api_key, arguments.api_key_file, partial(_warn, console))
        sender = Sender(arguments.url, api_key, arguments.retry_for, stop)
        try:
            found = find_images(arguments.sources, store=arguments.store, camera=arguments.camera, timestamp=arguments.timestamp)
            images = found.images
            summary.found, summary.unread, summary.left_out = len(images), found.unread, found.left_out
            if not images and not (arguments.resume and arguments.resume.exists()):
                raise UsageError(_no_images(found))
            with Journal(arguments.resume, arguments.url.rstrip("/")) as journal:
                _run(images, sender, journal, summary, arguments, console, stop)
        finally:
            sender.close()
    except (UsageError, OSError) as error:
        console.print(f"scripts/upload: {escape(str(error))}", style="red", markup=False, soft_wrap=True)
        return USAGE_ERROR
    except AlreadyRunning as error:
        console.print(f"scripts/upload: {escape(str(error))}", style="red", markup=False, soft_wrap=True)
        return ALREADY_RUNNING
    except (KeyboardInterrupt, _Interrupted):
        console.print(f"Interrupted; {summary.accepted} images were accepted.{_how_to_resume(arguments)}", markup=False, soft_wrap=True)
        return INTERRUPTED
    summary.show(console, arguments.url, _how_to_resume(arguments), waited=arguments.wait)
    if arguments.json:
        print(summary.as_json())
    return summary.exit_code


def _warn(console: Console, text: str) -> None:
    console.print(f"Warning: {escape(text)}", style="red", markup=False, soft_wrap=True)


def _no_images(found: Found) -> str:
    reasons = [f"{unread['path']} could not be read: {unread['detail']}" for unread in found.unread[:1]]
    reasons += [f"left out: {describe(found.left_out)}"] if found.left_out else []
    return f"No images found{''.join(f' ({reason})' for reason in reasons)}; name files, folders with images, or manifests."


def _run(
    images: list[Image],
    sender: Sender,
    journal: Journal,
    summary: Summary,
    arguments: argparse.Namespace,
    console: Console,
    stop: threading.Event,
) -> None:
    """Send all groups and, with ``--wait``, wait for the results; remove the journal if nothing is left to resume."""
    for result in journal.results:
        summary.add_group(result["batch_id"], result["accepted"], result["rejected"])
        summary.skipped += result["accepted"] + len(result["rejected"])
    expired = [group for group in journal.pending.values() if group.at < time.time() - _KEY_LIFETIME_S]
    if expired:
        count = sum(len(group.images) for group in expired)
        _warn(console, f"{count} images were sent more than 24 h ago without a response; they are sent again and may be stored twice.")
    try:
        limits = sender.fetch_limits()
    except GaveUp as error:
        summary.gave_up = str(error)
        return
    max_images = min(arguments.batch_size, limits["max_images"])
    max_bytes = min(arguments.batch_bytes, limits["max_body_bytes"] - _BODY_OVERHEAD - _IMAGE_OVERHEAD * max_images)
    groups = list(plan_groups(images, journal, max_images=max_images, max_bytes=max_bytes))
    upload = Upload(sender, journal, stop, limits["max_image_bytes"])
    with _progress(console, arguments) as progress:
        _send(upload, groups, summary, arguments, progress, console, stop)
        if summary.gave_up is None and arguments.wait:
            _wait_for_results(sender, summary, arguments.wait_for, progress)
    if summary.gave_up is None and summary.wait_over is None:
        journal.remove()


def _send(
    upload: Upload,
    groups: list[Group],
    summary: Summary,
    arguments: argparse.Namespace,
    progress: Progress,
    console: Console,
    stop: threading.Event,
) -> None:
    total = sum(len(group.images) for group in groups)
    bar = progress.add_task("uploading", total=sum(group.size for group in groups), count="")
    sent = 0

    def on_result(group: Group, result: GroupResult) -> None:
        nonlocal sent
        summary.add_group(result.batch_id, result.accepted, result.rejected)
        sent += len(group.images)
        progress.update(bar, advance=group.size, count=f"{sent}/{total}")

    with _handle_interrupts(upload, console, stop, arguments) as interrupted:
        summary.gave_up = upload.send(iter(groups), arguments.parallel, on_result)
    if interrupted.is_set():
        raise _Interrupted


@contextmanager
def _handle_interrupts(upload: Upload, console: Console, stop: threading.Event, arguments: argparse.Namespace) -> Iterator[threading.Event]:
    """On Ctrl-C, end the upload after the requests in progress are answered and recorded.

    On a second Ctrl-C, exit immediately.

    :returns: an event that the first Ctrl-C sets.
    """
    interrupted = threading.Event()

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        if interrupted.is_set():
            # End the line of the progress bar, and show the cursor, which the bar hides.
            prefix = "\n\x1b[?25h" if console.is_terminal else ""
            # Write without the console and without Python's buffers, because the signal may have interrupted the
            # writing of the first message.
            os.write(2, os.fsencode(f"{prefix}Stopped without waiting.{_how_to_resume(arguments)}\n"))
            os._exit(INTERRUPTED)  # a normal exit would wait for the threads; the journal already has all groups that were sent
        interrupted.set()
        stop.set()
        console.print(f"Waiting for {upload.in_flight} requests in progress; press Ctrl-C again to exit immediately.")

    previous = signal.getsignal(signal.SIGINT)
    if previous is signal.SIG_IGN:  # the shell makes background jobs ignore SIGINT
        yield interrupted
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, previous)


def _wait_for_results(sender: Sender, summary: Summary, wait_for: float | None, progress: Progress) -> None:
    seconds = _WAIT_S + _WAIT_PER_IMAGE_S * summary.accepted if wait_for is None else wait_for
    until = time.monotonic() + seconds
    bar = progress.add_task("waiting for results", total=summary.accepted, count="")
    for batch_id, size in summary.batches.items():
        try:
            while "images" in (batch := sender.fetch_batch(batch_id, until)) and not batch["finished_at"] and time.monotonic() < until:
                # If too many clients are waiting, the service responds immediately, although the batch is unfinished.
                time.sleep(0.2)
        except GaveUp as error:
            summary.waiting = summary.accepted - summary.done - summary.failed.total()
            summary.wait_over = f"Waiting for the results failed: {error}."
            return
        if "images" in batch:
            summary.add_batch(batch)
        else:
            summary.failed[batch.get("code", "not_found")] += size
        progress.update(bar, advance=size, count=f"{summary.done + summary.failed.total()}/{summary.accepted}")
    if summary.waiting:
        summary.wait_over = (
            f"{summary.waiting} images have no result after {seconds:g} s; check that the workers are running. The batch page shows the progress."
        )


def _how_to_resume(arguments: argparse.Namespace) -> str:
    """Return a sentence with the command that resumes the upload, or an empty string if there is no resume file."""
    if not arguments.resume or not arguments.resume.exists():
        return ""
    command = shlex.join([os.environ.get("INVOKED_AS", "scripts/upload"), *without_key(sys.argv[1:])])
    return f" To resume: {command}" if arguments.api_key is None else f" To resume, set {VARIABLE} and run: {command}"


def _progress(console: Console, arguments: argparse.Namespace) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=arguments.quiet, transient=False)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/upload", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, metavar="PATH", help="images, folders, or .csv manifests")
    parser.add_argument("--url", default="http://127.0.0.1:5000", help="address of the service (default: %(default)s)")
    api_key = parser.add_mutually_exclusive_group()
    api_key.add_argument(OPTION, metavar="KEY", help="API key, if the service requires one; other users of this machine can see it in the list of processes")
    api_key.add_argument(FILE_OPTION, type=Path, metavar="FILE", help=f"file whose first line is the API key (default: the environment variable {VARIABLE}, if it is set)")
    parser.add_argument("--store", help=f"store_name of the images for which no manifest sets one (default: {DEFAULTS['store_name']})")
    parser.add_argument("--camera", help=f"camera_id of the images for which no manifest sets one (default: {DEFAULTS['camera_id']})")
    parser.add_argument(
        "--timestamp", help="RFC 3339 time or Unix seconds of the images for which no manifest sets one (default: the file's modification time)"
    )
    parser.add_argument("--batch-size", type=_positive, default=32, metavar="N", help="maximum number of images in a batch (default: %(default)s)")
    parser.add_argument("--batch-bytes", type=_positive, default=16 * 1024 * 1024, metavar="N", help="maximum size of a batch in bytes (default: 16 MiB)")
    parser.add_argument("--parallel", type=_positive, default=2, metavar="N", help="number of batches that are sent at the same time (default: %(default)s)")
    parser.add_argument("--retry-for", type=float, default=300.0, metavar="S", help="for how many seconds to retry a batch that is not accepted (default: %(default)s)")
    resume = parser.add_mutually_exclusive_group()
    resume.add_argument(
        "--resume",
        type=Path,
        metavar="FILE",
        help=(
            "resume file, which records the images that were sent and the responses; it is removed when everything is done "
            "(default: a file in the current folder, whose name is derived from the PATHs, --url, --store, --camera and --timestamp)"
        ),
    )
    resume.add_argument("--no-resume", action="store_true", help="do not use a resume file; a later run then uploads everything again")
    parser.add_argument("--wait", action="store_true", help="wait for the results and print a summary of them")
    parser.add_argument(
        "--wait-for",
        type=float,
        metavar="S",
        help=f"longest wait for the results in seconds; implies --wait (default: {_WAIT_S:.0f}, plus {_WAIT_PER_IMAGE_S:.0f} for each image)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object on standard output")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    arguments = parser.parse_intermixed_args()
    arguments.wait = arguments.wait or arguments.wait_for is not None
    arguments.resume = None if arguments.no_resume else arguments.resume or _default_resume_file(arguments)
    return arguments


def _default_resume_file(arguments: argparse.Namespace) -> Path:
    """Derive the name of the resume file from the sources, the service and the metadata options.

    Uploads that differ in one of these have different files. The name does not depend on the size of the batches, so an
    upload can be resumed with another size.
    """
    paths = sorted(str(source.absolute()) for source in arguments.sources)
    store = DEFAULTS["store_name"] if arguments.store is None else arguments.store
    camera = DEFAULTS["camera_id"] if arguments.camera is None else arguments.camera
    parts = (paths, arguments.url.rstrip("/"), store, camera, arguments.timestamp)
    return Path(f"shelfsight-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.upload.jsonl")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
