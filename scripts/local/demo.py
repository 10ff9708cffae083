"""Show what it does: start it if need be, upload pictures, wait, print what was found: ``scripts/demo [FOLDER]``.

Exits with what the upload exits with (see ``scripts/upload --help``). What it started runs on: ``scripts/stop`` ends it.
"""

import argparse
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import FrameType
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from scripts.client.summary import INTERRUPTED, NO_RESULTS, NOT_TAKEN
from scripts.local import embedded_servers
from scripts.local.installation import DEFAULT_DATA, ROOT, known

SAMPLES: Final = ROOT / "samples"
_ANSWER_S: Final = 60
_SHOWN: Final = 500


def main() -> None:
    """Do it; exit with what the upload exits with."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, default=None, metavar="FOLDER", help="your own pictures (default: samples/)")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="as for scripts/start (default: data)")
    parser.add_argument("--port", type=int, default=5000, metavar="N", help="as for scripts/start, if it does not run yet (default: 5000)")
    parser.add_argument("--wait-for", metavar="S", help="seconds to wait for the results at most (default: as for scripts/upload)")
    asked = parser.parse_args()
    source = asked.source or (SAMPLES / "manifest.csv" if (SAMPLES / "manifest.csv").exists() else SAMPLES)
    if not source.exists():
        sys.exit(f"error: there is no {source}")
    try:
        sys.exit(_demo(source, asked))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _demo(source: Path, asked: argparse.Namespace) -> int:
    data = asked.data.resolve()
    where = f"scripts/status{'' if data == DEFAULT_DATA else f' --data {data}'}"
    url = _running(data) or _start(data, asked.port)
    code, summary = _upload(source, url, asked.wait_for)
    try:
        images = [image for batch_id in summary["batches"] for image in _get(f"{url}/image_batches/{batch_id}")["images"]]
    except OSError as error:
        sys.exit(f"error: {url} does not answer any more ({error}); {where} says what runs")
    _show(images)
    print(f"Start page  {url}/")
    for batch_id in summary["batches"]:
        print(f"Batch       {url}/batches/{batch_id}")
    if code in {NOT_TAKEN, NO_RESULTS}:
        print(f"error: it is not all done; {where} says what runs and what does not, the logs are in {data / 'logs'}", file=sys.stderr)
    return code


def _running(data: Path) -> str | None:
    house = known(data)
    if house is None or house.holder() is None:
        return None
    return f"http://{embedded_servers.LOOPBACK}:{house.port}"


def _start(data: Path, port: int) -> str:
    code, _ = _run("scripts.local.start", ["--detach", "--data", str(data), "--port", str(port)])
    if code:
        sys.exit(code)  # it has said why
    return f"http://{embedded_servers.LOOPBACK}:{port}"


def _upload(source: Path, url: str, wait_for: str | None) -> tuple[int, dict[str, Any]]:
    """Upload with the bulk client, whose progress bar goes to the terminal.

    :returns: its exit code and its summary.
    """
    arguments = [str(source), "--url", url, "--store", "demo", "--wait", "--json", "--no-resume"]  # a demo is never resumed
    code, out = _run("scripts.client.main", arguments + (["--wait-for", wait_for] if wait_for else []), stdout=subprocess.PIPE)
    try:
        summary: dict[str, Any] = json.loads(out)
    except ValueError:
        sys.exit(code or 1)  # it has said why
    return code, summary


def _run(module: str, arguments: list[str], stdout: int | None = None) -> tuple[int, str]:
    """Run another command until it ends; its own limits hold. Ctrl-C is its matter, which ends in order and says so.

    :returns: its exit code and what it printed, if ``stdout`` is a pipe.
    :raises KeyboardInterrupt: it was interrupted before it could say anything.
    """
    child: subprocess.Popen[str] | None = None
    early = False

    def pass_on(_signum: int, _frame: FrameType | None) -> None:
        nonlocal early
        if child is None:
            early = True
        else:
            child.send_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, pass_on)
    try:
        # In a group of its own a Ctrl-C reaches it once, through here, whether it came from a terminal or from `kill`.
        child = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=stdout, text=True, process_group=0)
        if early:
            child.send_signal(signal.SIGINT)
        out, _ = child.communicate()
    finally:
        signal.signal(signal.SIGINT, before)
    if child.returncode == -signal.SIGINT:
        raise KeyboardInterrupt
    return child.returncode, out or ""


def _get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=_ANSWER_S) as answer:  # noqa: S310 -- always http to loopback
        body: dict[str, Any] = json.load(answer)
        return body


def _show(images: list[dict[str, Any]]) -> None:
    table = Table(title="What was found", title_justify="left")
    for title in ("photo", "status", "best detection", "more", "barcodes"):
        table.add_column(title, overflow="fold")
    for image in images[:_SHOWN]:
        detections = sorted(image["detections"] or [], key=lambda one: -float(one["score"]))
        best = f"{detections[0]['label']} {detections[0]['score']:.2f}" if detections else "-"
        codes = ", ".join(f"{code['text']} ({code['format']})" for code in image["barcodes"] or [])
        state = image["status"] if not image["error"] else f"{image['status']}: {image['error']['code']}"
        table.add_row(image["filename"] or image["id"], state, best, str(max(0, len(detections) - 1) or "-"), codes or "-")
    Console().print(table)
    if len(images) > _SHOWN:
        print(f"... and {len(images) - _SHOWN} more on the page of the batch")


if __name__ == "__main__":
    main()
