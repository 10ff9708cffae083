"""``scripts/start``: what dies comes back, the supervisor too, and a second start says that it runs."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from scripts.local.house import ROOT
from tests.servers import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def wait_until_ready(stack: Stack, limit_s: float = 60.0) -> None:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        try:
            if httpx.get(f"{stack.url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise AssertionError("not ready")


def wait_for_another(stack: Stack, name: str, old: int) -> int:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if (pid := stack.pid(name)) != old:
            return pid
        time.sleep(0.1)
    raise AssertionError(f"{name} did not come back")


def script(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", f"scripts.local.{name}", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("name", ["web", "worker-1", "sweep", "redis", "mongod", "supervisor"])
def test_a_killed_process_comes_back_with_its_pid_on_file(stack: Stack, name: str) -> None:
    old = stack.kill(name)
    new = wait_for_another(stack, name, old)
    wait_until_ready(stack)
    assert Path(f"/proc/{new}/cmdline").read_bytes()


def test_no_process_outlives_a_killed_supervisor(stack: Stack) -> None:
    names = ["mongod", "redis", "web", "worker-1", "sweep"]
    before = {name: stack.pid(name) for name in names}
    stack.kill("supervisor")
    after = {name: wait_for_another(stack, name, before[name]) for name in names}
    wait_until_ready(stack)
    assert not set(before.values()) & set(after.values())
    for pid in before.values():
        assert not Path(f"/proc/{pid}").exists()


def test_a_second_start_over_the_same_folder_says_that_it_runs(stack: Stack) -> None:
    again = script("start", "--detach", "--data", str(stack.data), "--port", "1")
    assert again.returncode == 1
    assert "runs already" in again.stderr
    assert stack.url in again.stderr


def test_a_taken_port_is_one_line_with_its_remedy(stack: Stack, tmp_path: Path) -> None:
    refused = script("start", "--detach", "--data", str(tmp_path), "--port", str(stack.port))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "--port" in refused.stderr


def test_everything_listens_on_loopback_only(stack: Stack) -> None:
    listening = "0A"
    mine = {stack.port, int(stack.mongo_url.split(":")[2].split("/")[0]), int(stack.redis_url.split(":")[2].split("/")[0])}
    addresses = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, port = local.split(":")
            if state == listening and int(port, 16) in mine:
                addresses.add(address)
    assert addresses == {"0100007F"}


def test_nothing_runs_over_a_folder_that_was_never_started(tmp_path: Path) -> None:
    assert "Nothing runs" in script("stop", "--data", str(tmp_path)).stdout


def test_status_names_every_process_and_what_waits(stack: Stack) -> None:
    wait_until_ready(stack)
    said = script("status", "--data", str(stack.data), "--json")
    assert said.returncode == 0, said.stdout + said.stderr
    found = json.loads(said.stdout)
    assert found["running"]
    assert found["not_ready"] == {}
    running = {process["name"]: process["pid"] for process in found["processes"]}
    assert set(running) == {"supervisor", "mongod", "redis", "web", "worker-1", "sweep"}
    assert all(stack.pid(name) == pid for name, pid in running.items())
    assert found["ledger"]["received"] >= 0
    assert found["disk_free"] > 0


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


def test_a_folder_whose_guard_was_killed_starts_clean(tmp_path: Path) -> None:
    crashed = Stack(tmp_path / "data")
    try:
        crashed.start()
        crashed.kill("guard")
        crashed.start()
        wait_until_ready(crashed)
    finally:
        crashed.stop()
    assert not list((tmp_path / "data/run").glob("*.pid"))
