"""``scripts/status``: processes, backlog, ledger and advice; and ``scripts/stop`` when nothing runs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.local.installation import ROOT
from tests.e2e.installations import (
    read_ledger,
    read_status,
    run_script,
    upload_sample,
    wait_for_new_pid,
    wait_until_ready,
)
from tests.support.service_stack import Stack, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
MIB = 1024 * 1024


def test_status_reports_every_process_and_the_backlog(stack: Stack) -> None:
    wait_until_ready(stack)
    before = shutil.disk_usage(stack.data).free
    completed = read_status(stack.data)
    after = shutil.disk_usage(stack.data).free  # other tests write at the same time
    assert completed.returncode == 0, completed.stdout + completed.stderr
    found = json.loads(completed.stdout)
    assert found["running"]
    assert found["not_ready"] == {}
    running = {process["name"]: process["pid"] for process in found["processes"]}
    assert set(running) == {"supervisor", "mongod", "redis", "web", "worker-1", "inspector", "jobs", "sweep"}
    assert all(stack.pid(name) == pid for name, pid in running.items())
    assert found["external"] == []
    assert min(before, after) - 256 * MIB <= found["disk_free"] <= max(before, after) + 256 * MIB
    assert found["disk_watermark"] == 1024 * MIB


def test_status_counts_received_images(stack: Stack) -> None:
    wait_until_ready(stack)
    wait_until(lambda: read_ledger(stack.data)["pending"] == 0, 240)  # wait for the images of other tests
    before = read_ledger(stack.data)
    assert upload_sample(stack.url) == 202
    wait_until(lambda: read_ledger(stack.data)["done"] > before["done"], 240)
    assert read_ledger(stack.data) == before | {"received": before["received"] + 1, "done": before["done"] + 1}


@pytest.mark.parametrize("check", [["worker.runtime.healthcheck"], ["worker.runtime.healthcheck", "--inspector"], ["worker.runtime.healthcheck", "--sweep"], ["web.healthcheck"]])
def test_the_health_checks_of_the_containers_pass_on_a_whole_installation(stack: Stack, check: list[str]) -> None:
    wait_until_ready(stack)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MONGODB_URL": stack.mongo_url, "WEB_PORT": str(stack.port)}
    completed = subprocess.run([sys.executable, "-m", *check], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (completed.returncode, completed.stderr) == (0, "")


def test_status_counts_restarts(stack: Stack) -> None:
    wait_until_ready(stack)
    before = restart_count(stack, "sweep")
    wait_for_new_pid(stack, "sweep", stack.kill("sweep"))
    assert restart_count(stack, "sweep") == before + 1


def restart_count(stack: Stack, name: str) -> int:
    found = json.loads(run_script("status", "--data", str(stack.data), "--json").stdout)
    counts: dict[str, int] = {process["name"]: process["restarts"] for process in found["processes"]}
    return counts[name]


def test_status_without_a_start_names_the_start_script(tmp_path: Path) -> None:
    refused = run_script("status", "--data", str(tmp_path))
    assert refused.returncode != 0
    assert "scripts/start" in refused.stderr


def test_stop_reports_that_nothing_runs_when_nothing_was_started(tmp_path: Path) -> None:
    assert "Nothing is running" in run_script("stop", "--data", str(tmp_path)).stdout
