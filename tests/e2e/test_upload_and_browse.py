"""The steps of a user: upload the samples with the upload client, wait, and open the pages in a browser."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from scripts.local.installation import ROOT
from tests.e2e.browser import Browser
from tests.support.service_stack import Service
from tests.support.web_client import make_image

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SAMPLES = ROOT / "samples"


def upload(service: Service, *arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "scripts.client.main", *arguments, "--url", service.url, "--json", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: "subprocess.Popen[str]") -> tuple[int, dict[str, Any]]:
    out, err = process.communicate(timeout=400)
    return process.returncode, json.loads(out) if out.strip() else {"stderr": err}


def test_the_samples_are_uploaded_processed_and_shown(service: Service, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    code, summary = finish(upload(service, str(SAMPLES / "manifest.csv"), "--wait", cwd=tmp_path))
    assert code == 0, summary
    assert (summary["accepted"], summary["done"], summary["rejected"]) == (14, 14, [])
    assert {"Apple", "Orange", "Banana", "Milk", "Juice"} <= set(summary["labels"])
    batch = json.load(urllib.request.urlopen(f"{service.url}/image_batches/{summary['batches'][0]}", timeout=60))
    checks = {image["filename"]: image["barcode_check"] for image in batch["images"]}
    assert (checks["carton-02a.jpg"], checks["carton-02b.jpg"]) == ("match", "mismatch")
    browser: Browser = request.getfixturevalue("browser")  # requested here, so that the steps above run without a browser
    for path, expected in (("/", f'href="/batches/{batch["id"]}"'), (f"/batches/{batch['id']}", "Juice"), ("/docs", "/upload_image_batch")):
        browser.open(service.url + path)
        assert expected in browser.evaluate("document.documentElement.outerHTML")


def test_an_interrupted_upload_resumes_and_sends_nothing_twice(service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    image = make_image()
    for number in range(200):  # so many that some are left even when the signal arrives late
        (folder / f"{number:03}.jpg").write_bytes(image)
    (folder / "broken.jpg").write_bytes(b"no image")
    store = f"interrupted {uuid.uuid4().hex}"
    arguments = [str(folder), "--batch-size", "2", "--parallel", "1", "--store", store]
    first = upload(service, *arguments, cwd=tmp_path)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and sum(file.read_text().count("batch_id") for file in tmp_path.glob("*.upload.jsonl")) < 3:
        time.sleep(0.01)
    first.send_signal(signal.SIGINT)
    code, summary = finish(first)
    assert (code, "To resume: " in summary["stderr"]) == (130, True)
    code, summary = finish(upload(service, *arguments, "--batch-size", "50", cwd=tmp_path))
    assert (code, summary["accepted"], [rejected["code"] for rejected in summary["rejected"]]) == (1, 200, ["unsupported_format"])
    assert summary["skipped"] >= 6
    assert not list(tmp_path.glob("*.upload.jsonl"))
    listed = json.load(urllib.request.urlopen(f"{service.url}/image_batches?store_name={quote(store)}&per_page=100", timeout=60))
    assert sum(batch["total"] for batch in listed["batches"]) == 200
