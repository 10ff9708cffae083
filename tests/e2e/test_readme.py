"""The commands in the README work as printed."""

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
    """Parse the JSON documents that several calls of curl have printed one after the other."""
    documents = []
    while text := text.strip():
        document, end = json.JSONDecoder().raw_decode(text)
        documents.append(document)
        text = text[end:]
    return documents


def test_the_commands_of_the_readme_work_as_printed(service: Service) -> None:
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- tests/e2e/test_readme.py .*?-->\n```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    commands = block[1].replace("http://127.0.0.1:5000", service.url)
    commands = commands.replace("Idempotency-Key: shelf-01", f"Idempotency-Key: {uuid.uuid4().hex}")  # an earlier run has used the original key
    completed = subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    form, body, newest, listed, limits, ready, inspection = parse_json_documents(completed.stdout)
    assert [image["store_name"] for image in newest["batches"][0]["images"]] == ["Main Street"]
    assert (listed["page"], len(listed["images"]) <= 1) == (1, True)
    assert (limits["max_images"] > 0, ready["status"]) == (True, "ready")
    deadline = time.monotonic() + 240
    result: dict[str, Any] = {}
    while "detections" not in result and time.monotonic() < deadline:  # a 202 response has no detections
        result = httpx.get(f"{service.url}{inspection['links']['self']}?wait=30", timeout=60).json()
    assert {detection["label"] for detection in result["detections"]} >= {"Apple", "Orange", "Banana"}
    deadline = time.monotonic() + 240
    statuses: list[str] = []
    while statuses != ["done", "done"] and time.monotonic() < deadline:
        statuses = [httpx.get(f"{service.url}{batch['links']['self']}?wait=10", timeout=60).json()["status"] for batch in (form, body)]
    assert statuses == ["done", "done"]
