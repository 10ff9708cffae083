"""Show what it does: start it if need be, upload pictures, wait, print what was found: ``scripts/demo [FOLDER]``."""

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from scripts.local import embedded
from scripts.local.house import DEFAULT_DATA, ROOT, known

SAMPLES: Final = ROOT / "samples"
_ANSWER_S: Final = 60
_SHOWN: Final = 500


def main() -> None:
    """Do it; exit with what the upload exits with."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, default=None, metavar="FOLDER", help="your own pictures (default: samples/)")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="as for scripts/start (default: data)")
    parser.add_argument("--port", type=int, default=5000, metavar="N", help="as for scripts/start, if it does not run yet (default: 5000)")
    asked = parser.parse_args()
    source = asked.source or (SAMPLES / "manifest.csv" if (SAMPLES / "manifest.csv").exists() else SAMPLES)
    if not source.exists():
        sys.exit(f"error: there is no {source}")
    url = _running(asked.data.resolve()) or _start(asked.data, asked.port)
    code, summary = _upload(source, url)
    images = [image for batch_id in summary.get("batches", []) for image in _get(f"{url}/image_batches/{batch_id}")["images"]]
    _show(images)
    print(f"Start page  {url}/")
    for batch_id in summary.get("batches", []):
        print(f"Batch       {url}/batches/{batch_id}")
    sys.exit(code)


def _running(data: Path) -> str | None:
    house = known(data)
    if house is None:
        return None
    lock = house.lock()
    if lock is None:
        return f"http://{embedded.LOOPBACK}:{house.port}"
    lock.close()
    return None


def _start(data: Path, port: int) -> str:
    command = [sys.executable, "-m", "scripts.local.start", "--detach", "--data", str(data), "--port", str(port)]
    if subprocess.run(command, check=False, timeout=600).returncode:
        sys.exit(1)  # it has said why
    return f"http://{embedded.LOOPBACK}:{port}"


def _upload(source: Path, url: str) -> tuple[int, dict[str, Any]]:
    """Upload with the bulk client, whose progress bar goes to the terminal.

    :returns: its exit code and its summary.
    """
    with tempfile.TemporaryDirectory() as folder:  # a demo is never resumed
        command = [sys.executable, "-m", "scripts.client.main", str(source), "--url", url, "--store", "demo"]
        command += ["--wait", "--json", "--resume", f"{folder}/demo.jsonl"]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # its own limits hold
    try:
        summary: dict[str, Any] = json.loads(ended.stdout)
    except ValueError:
        sys.exit(ended.returncode or 1)
    return ended.returncode, summary


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
