"""``scripts/status``: every process, what waits, what was received, and what to do; ``scripts/stop`` where nothing runs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.local.installation import ROOT
from tests.e2e.installations import ledger, script, send_a_picture, status, wait_for_another, wait_until_ready
from tests.support.service_stack import Stack, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
MIB = 1024 * 1024


def test_status_names_every_process_and_what_waits(stack: Stack) -> None:
    wait_until_ready(stack)
    before = shutil.disk_usage(stack.data).free
    said = status(stack.data)
    after = shutil.disk_usage(stack.data).free  # other tests write meanwhile
    assert said.returncode == 0, said.stdout + said.stderr
    found = json.loads(said.stdout)
    assert found["running"]
    assert found["not_ready"] == {}
    running = {process["name"]: process["pid"] for process in found["processes"]}
    assert set(running) == {"supervisor", "mongod", "redis", "web", "worker-1", "inspector", "sweep"}
    assert all(stack.pid(name) == pid for name, pid in running.items())
    assert found["external"] == []
    assert min(before, after) - 256 * MIB <= found["disk_free"] <= max(before, after) + 256 * MIB
    assert found["disk_watermark"] == 1024 * MIB


def test_status_counts_what_was_received(stack: Stack) -> None:
    wait_until_ready(stack)
    until(lambda: ledger(stack.data)["pending"] == 0, 240)  # what other tests sent
    before = ledger(stack.data)
    assert send_a_picture(stack.url) == 202
    until(lambda: ledger(stack.data)["done"] > before["done"], 240)
    assert ledger(stack.data) == before | {"received": before["received"] + 1, "done": before["done"] + 1}


@pytest.mark.parametrize("check", [["worker.runtime.healthcheck"], ["worker.runtime.healthcheck", "--inspector"], ["worker.runtime.healthcheck", "--sweep"], ["web.healthcheck"]])
def test_the_health_checks_of_containers_find_a_whole_house_well(stack: Stack, check: list[str]) -> None:
    wait_until_ready(stack)
    around = os.environ | {"PYTHONPATH": str(ROOT), "MONGODB_URL": stack.mongo_url, "WEB_PORT": str(stack.port)}
    said = subprocess.run([sys.executable, "-m", *check], env=around, capture_output=True, text=True, timeout=120, check=False)
    assert (said.returncode, said.stderr) == (0, "")


def test_status_counts_restarts(stack: Stack) -> None:
    wait_until_ready(stack)
    before = restarts(stack, "sweep")
    wait_for_another(stack, "sweep", stack.kill("sweep"))
    assert restarts(stack, "sweep") == before + 1


def restarts(stack: Stack, name: str) -> int:
    found = json.loads(script("status", "--data", str(stack.data), "--json").stdout)
    counts: dict[str, int] = {process["name"]: process["restarts"] for process in found["processes"]}
    return counts[name]


def test_status_without_a_start_says_what_to_do(tmp_path: Path) -> None:
    refused = script("status", "--data", str(tmp_path))
    assert refused.returncode != 0
    assert "scripts/start" in refused.stderr


def test_nothing_runs_over_a_folder_that_was_never_started(tmp_path: Path) -> None:
    assert "Nothing is running" in script("stop", "--data", str(tmp_path)).stdout
