"""The lines of the README work as printed."""

import json
import re
import subprocess
import time
import uuid
from typing import Any

import httpx
import pytest

from scripts.local.installation import ROOT
from tests.support.service_stack import Service

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def parse_json_documents(text: str) -> list[dict[str, Any]]:
    """Take apart the JSON that several calls of curl have printed one after the other."""
    found = []
    while text := text.strip():
        answer, end = json.JSONDecoder().raw_decode(text)
        found.append(answer)
        text = text[end:]
    return found


def test_the_lines_of_the_readme_work_as_printed(service: Service) -> None:
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- tests/e2e/test_readme.py .*?-->\n```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    lines = block[1].replace("http://127.0.0.1:5000", service.url)
    lines = lines.replace("Idempotency-Key: shelf-01", f"Idempotency-Key: {uuid.uuid4().hex}")  # an earlier run has used that one
    ran = subprocess.run(["bash", "-euo", "pipefail", "-c", lines], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    form, body, newest, limits, ready, one = parse_json_documents(ran.stdout)
    assert [image["store_name"] for image in newest["batches"][0]["images"]] == ["Main Street"]
    assert (limits["max_images"] > 0, ready["status"]) == (True, "ready")
    until = time.monotonic() + 240
    seen: dict[str, Any] = {}
    while "detections" not in seen and time.monotonic() < until:  # a 202 has none yet
        seen = httpx.get(f"{service.url}{one['links']['self']}?wait=30", timeout=60).json()
    assert {found["label"] for found in seen["detections"]} >= {"Apple", "Orange", "Banana"}
    until = time.monotonic() + 240
    statuses: list[str] = []
    while statuses != ["done", "done"] and time.monotonic() < until:
        statuses = [httpx.get(f"{service.url}{sent['links']['self']}?wait=10", timeout=60).json()["status"] for sent in (form, body)]
    assert statuses == ["done", "done"]
