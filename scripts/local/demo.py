"""Demonstrate Shelfsight: start it if it is not running, upload images, wait for the results and print them.

The exit code is that of the upload (see scripts/upload --help). Shelfsight continues to run afterwards; stop it with
scripts/stop. If the service requires an API key (ACCESS=on), set SHELFSIGHT_API_KEY to one that may upload and read images.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scripts.client.summary import INTERRUPTED, NOT_ACCEPTED, RESULTS_MISSING
from scripts.local import loopback, messages
from scripts.local.installation import DEFAULT_DATA, ROOT, data_folder, load_installation

SAMPLES: Final = ROOT / "samples"
_REQUEST_TIMEOUT_S: Final = 60
_MAX_ROWS: Final = 500


def main() -> None:
    """Run the demo; exit with the exit code of the upload."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, default=None, metavar="FOLDER", help="folder of images to upload (default: samples/)")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="data folder, as for scripts/start (default: data)")
    parser.add_argument("--port", type=int, default=5000, metavar="N", help="port, as for scripts/start; ignored when Shelfsight is already running (default: 5000)")
    parser.add_argument("--wait-for", metavar="S", help="longest wait for the results in seconds (default: as for scripts/upload)")
    arguments = parser.parse_args()
    messages.print_any_text()
    source = arguments.source or (SAMPLES / "manifest.csv" if (SAMPLES / "manifest.csv").exists() else SAMPLES)
    if not source.exists():
        sys.exit(f"error: {source} does not exist; name an existing folder or file")
    try:
        sys.exit(_demo(source, arguments))
    except PermissionError:
        sys.exit(f"error: {data_folder(arguments.data)} belongs to another user; choose another folder with --data")
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _demo(source: Path, arguments: argparse.Namespace) -> int:
    data = data_folder(arguments.data)
    status_command = messages.command("status", data)
    url = _find_running(data) or _start(data, arguments.port)
    _check_credentials(data)
    code, summary = _upload(source, url, arguments.wait_for)
    try:
        images = [image for batch_id in summary["batches"] for image in _get(f"{url}/image_batches/{batch_id}")["images"]]
    except OSError as error:
        sys.exit(f"error: {url} no longer responds ({error}); run {status_command}")
    _show(images)
    print(f"Start page  {url}/")
    for batch_id in summary["batches"]:
        print(f"Batch       {url}/batches/{batch_id}")
    if code in {NOT_ACCEPTED, RESULTS_MISSING}:
        print(f"error: not all images are done; run {status_command}, and see the logs in {data / 'logs'}", file=sys.stderr)
    return code


def _find_running(data: Path) -> str | None:
    """Return the URL of the installation that is running with a data folder; None if none is running."""
    installation = load_installation(data)
    if installation is None or installation.find_lock_holder() is None:
        return None
    return installation.url


def _start(data: Path, port: int) -> str:
    code, _ = _run("scripts.local.start", ["--detach", "--data", str(data), "--port", str(port)])
    if code:
        sys.exit(code)  # scripts/start has printed the error
    installation = load_installation(data)
    assert installation is not None  # noqa: S101 -- scripts/start has saved it
    return installation.url


def _check_credentials(data: Path) -> None:
    """Exit with an error message if the running installation needs credentials, and there are none."""
    installation = load_installation(data)
    if installation is not None and installation.needs_credentials and not os.environ.get("SHELFSIGHT_API_KEY"):
        create_key = f"{messages.command('admin', data)} create-key --name demo --role uploader --stores demo"
        sys.exit(f"error: Shelfsight runs at {installation.url}, and requires credentials; run SHELFSIGHT_API_KEY=$({create_key}) {messages.command('demo', data)}")


def _upload(source: Path, url: str, wait_for: str | None) -> tuple[int, dict[str, Any]]:
    """Upload the images with the bulk client, which shows its progress bar on the terminal.

    :returns: the client's exit code and its summary.
    """
    # An interrupted demo is not resumed, so it needs no resume file.
    arguments = [str(source), "--url", url, "--store", "demo", "--wait", "--json", "--no-resume"]
    code, out = _run("scripts.client.main", arguments + (["--wait-for", wait_for] if wait_for else []), stdout=subprocess.PIPE)
    try:
        summary: dict[str, Any] = json.loads(out)
    except ValueError:
        sys.exit(code or 1)  # the client has printed the error
    return code, summary


def _run(module: str, arguments: list[str], stdout: int | None = None) -> tuple[int, str]:
    """Run another command of this project until it ends. There is no time limit except those of the command itself.

    Ctrl-C is forwarded to the command, which then shuts down cleanly and prints the reason.

    :returns: the command's exit code and, if ``stdout`` is a pipe, the command's standard output.
    :raises KeyboardInterrupt: when SIGINT ended the command before the command could handle the signal.
    """
    child: subprocess.Popen[str] | None = None
    interrupted_early = False

    def forward(_signum: int, _frame: FrameType | None) -> None:
        nonlocal interrupted_early
        if child is None:
            interrupted_early = True
        else:
            child.send_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, forward)
    try:
        # The command has its own process group, so it receives SIGINT exactly once, from ``forward``, whether a
        # terminal or `kill` sent it.
        child = subprocess.Popen([sys.executable, "-P", "-m", module, *arguments], stdout=stdout, text=True, process_group=0)
        if interrupted_early:
            child.send_signal(signal.SIGINT)
        out, _ = child.communicate()
    finally:
        signal.signal(signal.SIGINT, before)
    if child.returncode == -signal.SIGINT:
        raise KeyboardInterrupt
    return child.returncode, out or ""


def _get(url: str) -> dict[str, Any]:
    with loopback.open_url(url, _REQUEST_TIMEOUT_S, os.environ.get("SHELFSIGHT_API_KEY")) as response:
        body: dict[str, Any] = json.load(response)
        return body


def _show(images: list[dict[str, Any]]) -> None:
    table = Table(title="Results", title_justify="left")
    for title in ("image", "status", "best detection", "more", "barcodes"):
        table.add_column(title, overflow="fold")
    for image in images[:_MAX_ROWS]:
        detections = sorted(image["detections"] or [], key=lambda detection: -float(detection["score"]))
        best = f"{detections[0]['label']} {detections[0]['score']:.2f}" if detections else "-"
        barcodes = ", ".join(f"{barcode['text']} ({barcode['format']})" for barcode in image["barcodes"] or [])
        status = image["status"] if not image["error"] else f"{image['status']}: {image['error']['code']}"
        cells = (image["filename"] or image["id"], status, best, str(max(0, len(detections) - 1) or "-"), barcodes or "-")
        table.add_row(*map(Text, cells))  # Text, because brackets in a name are no markup
    Console().print(table)
    if len(images) > _MAX_ROWS:
        print(f"... and {len(images) - _MAX_ROWS} more on the batch page")


if __name__ == "__main__":
    main()
