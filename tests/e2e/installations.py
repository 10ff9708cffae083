"""Helpers of the tests of a whole installation: run ``scripts/start`` and the other scripts, and query the result."""

import contextlib
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from scripts.local.installation import ROOT
from scripts.local.servers.ports import free_port, is_free
from tests.support.service_stack import Stack, wait_until


def wait_until_ready(stack: Stack, limit_s: float = 300.0) -> None:
    def is_ready() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{stack.url}/readyz", timeout=5).status_code == 200
        return False

    wait_until(is_ready, limit_s, "the installation is ready")


def wait_for_new_pid(stack: Stack, name: str, old_pid: int) -> int:
    wait_until(lambda: stack.pid(name) != old_pid, 300, f"{name} has a new pid")
    return stack.pid(name)


def run_script(name: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", f"scripts.local.{name}", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def read_status(data: Path) -> "subprocess.CompletedProcess[str]":
    """Run ``scripts/status`` until all is ready: on a busy machine the web front or MongoDB may not answer in time."""
    deadline = time.monotonic() + 120
    while True:
        completed = run_script("status", "--data", str(data), "--json")
        if (completed.returncode == 0 and json.loads(completed.stdout)["ledger"] is not None) or time.monotonic() > deadline:
            return completed


def read_ledger(data: Path) -> dict[str, int]:
    """Return the counts of the ledger, which the sweep counted after the beginning of this call."""
    started = time.monotonic()
    while True:
        status = json.loads(read_status(data).stdout)
        elapsed_s = time.monotonic() - started
        if status["ledger_age_s"] < elapsed_s or elapsed_s > 120:
            counts: dict[str, int] = status["ledger"]
            return counts
        time.sleep(0.2)


def upload_sample(url: str) -> int:
    metadata = [{"timestamp": "2026-01-15T09:00:00Z", "store_name": "status", "camera_id": "cam-1"}]
    image = (ROOT / "samples/shelf-01.jpg").read_bytes()
    return httpx.post(f"{url}/upload_image_batch", data={"metadata": json.dumps(metadata)}, files={"file": image}, timeout=60).status_code


class StartCommand:
    """A run of ``scripts/start`` with its own folder, and all processes that were recorded while it ran."""

    def __init__(self, folder: Path, *arguments: str, limit_s: float = 240.0) -> None:
        folder.mkdir()
        self.data = folder / "data"
        self.port = free_port()
        self.out, self.err = folder / "out", folder / "err"
        self.processes: set[psutil.Process] = set()
        program = f"from scripts.local import start; start.READY_LIMIT_S = {limit_s}; start.main()"
        self.arguments = [sys.executable, "-c", program, "--data", str(self.data), "--port", str(self.port), "--workers", "1", *arguments]
        self.environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "subprocess.Popen[bytes]":
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(self.arguments, cwd=ROOT, env=self.environment, stdout=out, stderr=err)
        return self.process

    def start_in_a_terminal(self) -> tuple["subprocess.Popen[bytes]", int]:
        master, slave = pty.openpty()
        command = ["setsid", "--ctty", *self.arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        return self.process, master

    def wait_for(self, name: str) -> int:
        """Wait until a process has written its pid file, and return its pid."""
        file = self.data / "run" / f"{name}.pid"
        wait_until(lambda: file.exists() and file.read_text().strip(), 300)
        self.record_processes()
        return int(file.read_text())

    def wait_until_ready(self) -> None:
        wait_until(lambda: b"Shelfsight runs at" in self.out.read_bytes(), 300)
        self.record_processes()

    def record_processes(self) -> None:
        """Add the current child processes to ``processes``."""
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            self.processes.update(psutil.Process(self.process.pid).children(recursive=True))

    def assert_nothing_is_left(self, within_s: float = 15.0) -> None:
        assert self.processes
        wait_until(lambda: not any(process.is_running() for process in self.processes), within_s)
        assert is_free(self.port)
        assert "Nothing is running" in run_script("stop", "--data", str(self.data)).stdout

    def remove(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
