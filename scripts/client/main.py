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

--verify shows that the service has what the files contain: it requests the signed receipt of each batch, has the service
verify its signature, and compares the digest of each image with that of the local file, and its status. It says what is
missing, different, failed or unfinished. It also compares what earlier runs have uploaded whose resume file still exists;
--keep-resume keeps it. It needs the scope images:read. docs/uploading.md describes it.

--watch FOLDER uploads what other programs put into a folder, for example cameras, until Ctrl-C or SIGTERM. A file is uploaded
once it has not changed for --settle seconds; --delete removes it when its image is done. The metadata comes from --store,
--camera and --timestamp, or else from the file, as for folders. docs/uploading.md describes it.

A proxy that the environment names (http_proxy, https_proxy, no_proxy) is used, but never for a service on this machine.

To resume an interrupted upload, run the same command again within 24 hours. No image is uploaded twice, even if files
were added or removed in the meantime. A file that has changed counts as a new image. With an API key of another account,
an image whose response was lost may be stored twice. On Ctrl-C, the command waits for the responses to the requests in
progress, then exits; on a second Ctrl-C, it exits immediately.

Exit codes:
  0    all images were accepted (with --wait: all images are done; with --verify: they are those of the files)
  1    some images were rejected or failed or, with --verify, are not right, or some files or folders could not be read
  2    the command line, a manifest or the resume file is invalid
  3    the service did not accept all images
  4    the same upload is already running
  5    all images were accepted or rejected, but not all results arrived: they took too long, or the API key may not read them
  130  the upload was interrupted; with --watch, something is left, and the same command continues
"""

import argparse
import os
import shlex
import sys
import threading
import time
from functools import partial
from typing import Final

from rich.console import Console
from rich.progress import Progress

from scripts.client.arguments import WAIT_PER_IMAGE_S, WAIT_S, parse_arguments
from scripts.client.credentials import VARIABLE, find_api_key, without_key
from scripts.client.files import Found, find_images
from scripts.client.groups import Image, UsageError
from scripts.client.interrupts import handle_interrupts
from scripts.client.journal import AlreadyRunning, Journal
from scripts.client.progress import BYTES, IMAGES, make_progress
from scripts.client.send_group import GaveUp, Sender
from scripts.client.summary import ALREADY_RUNNING, INTERRUPTED, USAGE_ERROR, Summary, counted, describe, escape
from scripts.client.uploader import Group, GroupResult, Upload, body_limits, plan_groups
from scripts.client.verification import verify
from scripts.client.watching.command import WATCH_RETRY_S, watch

_KEY_LIFETIME_S: Final = 24 * 3600


class _Interrupted(Exception):
    """Ctrl-C was pressed, and the requests that were in progress have been completed."""


def main() -> int:
    """Run the upload that the command line describes.

    :returns: the exit code.
    """
    arguments = parse_arguments(__doc__ or "")
    console = Console(stderr=True, highlight=False)
    summary = Summary()
    stop = threading.Event()
    try:
        api_key = find_api_key(arguments.api_key, arguments.api_key_file, partial(_warn, console))
        retry_for = arguments.retry_for if arguments.watch is None else min(arguments.retry_for, WATCH_RETRY_S)
        sender = Sender(arguments.url, api_key, retry_for, stop)
        try:
            if arguments.watch is not None:
                return watch(arguments, sender, stop, console)
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
        console.print(f"Interrupted; {counted(summary.accepted, 'image was', 'images were')} accepted.{_how_to_resume(arguments)}", markup=False, soft_wrap=True)
        return INTERRUPTED
    summary.show(console, arguments.url, _how_to_resume(arguments), waited=arguments.wait, verified=arguments.verify)
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
        _warn(console, f"{counted(count, 'image was', 'images were')} sent more than 24 h ago without a response; sending again may store the same image twice.")
    try:
        limits = sender.fetch_limits()
    except GaveUp as error:
        summary.gave_up = str(error)
        return
    max_images, max_bytes = body_limits(limits, arguments.batch_size, arguments.batch_bytes)
    groups = list(plan_groups(images, journal, max_images=max_images, max_bytes=max_bytes))
    upload = Upload(sender, journal, stop, limits["max_image_bytes"])
    with make_progress(console, quiet=arguments.quiet) as progress:
        _send(upload, groups, summary, arguments, progress, console, stop)
        if summary.gave_up is None and arguments.wait:
            _wait_for_results(sender, summary, arguments.wait_for, progress)
        if summary.gave_up is None and arguments.verify:
            _verify(sender, summary, journal, progress)
    if not (summary.gave_up or summary.wait_over or summary.verify_over or summary.problems or arguments.keep_resume):
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
    bar = progress.add_task("uploading", total=sum(group.size for group in groups), count="", unit=BYTES)
    sent = 0

    def on_result(group: Group, result: GroupResult) -> None:
        nonlocal sent
        summary.add_group(result.batch_id, result.accepted, result.rejected)
        sent += len(group.images)
        progress.update(bar, advance=group.size, count=f"{sent}/{total}")

    with handle_interrupts(stop, console, lambda: upload.in_flight, partial(_how_to_resume, arguments)) as interrupted:
        summary.gave_up = upload.send(iter(groups), arguments.parallel, on_result)
    if interrupted.is_set():
        raise _Interrupted


def _wait_for_results(sender: Sender, summary: Summary, wait_for: float | None, progress: Progress) -> None:
    seconds = WAIT_S + WAIT_PER_IMAGE_S * summary.accepted if wait_for is None else wait_for
    until = time.monotonic() + seconds
    bar = progress.add_task("waiting for results", total=summary.accepted, count="", unit=IMAGES)
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
            f"{counted(summary.waiting, 'image has', 'images have')} no result after {seconds:g} s; check that the workers are running. The batch page shows the progress."
        )


def _verify(sender: Sender, summary: Summary, journal: Journal, progress: Progress) -> None:
    bar = progress.add_task("verifying", total=summary.accepted, count="", unit=IMAGES)

    def on_group(right: int, images: int, problems: list[dict[str, str]]) -> None:
        summary.verified += right
        summary.problems += problems
        progress.update(bar, advance=images, count=f"{summary.verified}/{summary.accepted}")

    try:
        verify(sender, journal.answered_groups(), on_group)
    except GaveUp as error:
        summary.verify_over = f"Verifying failed: {error}."


def _how_to_resume(arguments: argparse.Namespace) -> str:
    """Return a sentence with the command that resumes the upload, or an empty string if there is no resume file."""
    if not arguments.resume or not arguments.resume.exists():
        return ""
    command = shlex.join([os.environ.get("INVOKED_AS", "scripts/upload"), *without_key(sys.argv[1:])])
    return f" To resume: {command}" if arguments.api_key is None else f" To resume, set {VARIABLE} and run: {command}"


if __name__ == "__main__":
    sys.exit(main())
