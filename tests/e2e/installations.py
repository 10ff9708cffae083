"""What the tests of a whole house share: a running ``scripts/start``, its scripts, and what is asked of it."""

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

from scripts.local import embedded_servers
from scripts.local.installation import ROOT
from tests.support.service_stack import Stack, until


def wait_until_ready(stack: Stack, limit_s: float = 300.0) -> None:
    def ready() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{stack.url}/readyz", timeout=5).status_code == 200
        return False

    until(ready, limit_s, "the house is ready")


def wait_for_another(stack: Stack, name: str, old: int) -> int:
    until(lambda: stack.pid(name) != old, 300, f"another {name}")
    return stack.pid(name)


def script(name: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", f"scripts.local.{name}", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def status(data: Path) -> "subprocess.CompletedProcess[str]":
    """Ask until all is ready: in a stall the front or MongoDB may not answer in time."""
    end = time.monotonic() + 120
    while True:
        said = script("status", "--data", str(data), "--json")
        if (said.returncode == 0 and json.loads(said.stdout)["ledger"] is not None) or time.monotonic() > end:
            return said


def ledger(data: Path) -> dict[str, int]:
    counts: dict[str, int] = json.loads(status(data).stdout)["ledger"]
    return counts


def send_a_picture(url: str) -> int:
    about = [{"timestamp": "2026-01-15T09:00:00Z", "store_name": "status", "camera_id": "cam-1"}]
    picture = (ROOT / "samples/shelf-01.jpg").read_bytes()
    return httpx.post(f"{url}/upload_image_batch", data={"metadata": json.dumps(about)}, files={"file": picture}, timeout=60).status_code


class Front:
    """A running ``scripts/start`` over a folder of its own, and all the processes that it was ever seen to have."""

    def __init__(self, folder: Path, *arguments: str, limit_s: float = 240.0) -> None:
        folder.mkdir()
        self.data = folder / "data"
        self.port = embedded_servers.free_port()
        self.out, self.err = folder / "out", folder / "err"
        self.seen: set[psutil.Process] = set()
        program = f"from scripts.local import start; start.READY_LIMIT_S = {limit_s}; start.main()"
        self.command = [sys.executable, "-c", program, "--data", str(self.data), "--port", str(self.port), "--workers", "1", *arguments]
        self.environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "subprocess.Popen[bytes]":
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(self.command, cwd=ROOT, env=self.environment, stdout=out, stderr=err)
        return self.process

    def start_in_a_terminal(self) -> tuple["subprocess.Popen[bytes]", int]:
        master, slave = pty.openpty()
        command = ["setsid", "--ctty", *self.command]
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        return self.process, master

    def wait_for(self, name: str) -> int:
        """Wait until a process of it is on file, by its own account."""
        file = self.data / "run" / f"{name}.pid"
        until(lambda: file.exists() and file.read_text().strip(), 300)
        self.look()
        return int(file.read_text())

    def wait_until_ready(self) -> None:
        until(lambda: b"Shelfsight runs at" in self.out.read_bytes(), 300)
        self.look()

    def look(self) -> None:
        """Note the processes that there are."""
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            self.seen.update(psutil.Process(self.process.pid).children(recursive=True))

    def assert_that_nothing_is_left(self, within_s: float = 15.0) -> None:
        assert self.seen
        until(lambda: not any(process.is_running() for process in self.seen), within_s)
        assert embedded_servers.is_free(self.port)
        assert "Nothing is running" in script("stop", "--data", str(self.data)).stdout

    def remove(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)
        for process in self.seen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
