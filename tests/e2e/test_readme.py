"""The lines of the README work as printed."""

import re
import subprocess
import time

import httpx
import pytest

from scripts.local.house import ROOT
from tests.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_the_lines_of_the_readme_work_as_printed(stack: Stack) -> None:
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- tests/e2e/test_readme.py .*?-->\n```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    lines = block[1].replace("http://127.0.0.1:5000", stack.url)
    ran = subprocess.run(["bash", "-euo", "pipefail", "-c", lines], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = httpx.get(f"{stack.url}/image_batches", params={"store_name": "Main Street"}, timeout=10).json()
        if all(batch["status"] == "done" for batch in found["batches"]):
            break
        time.sleep(0.2)
    assert [batch["status"] for batch in found["batches"]] == ["done", "done"]
