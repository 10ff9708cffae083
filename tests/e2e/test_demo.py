"""``scripts/demo`` as a user runs it: on an empty folder, interrupted, and with a worker that does not work."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.local.installation import ROOT
from scripts.local.servers.ports import free_port, is_free
from tests.support.service_stack import Stack, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
TIMEOUT_S = 600


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with three sample images."""
    path = tmp_path / "images"
    path.mkdir()
    for name in ("shelf-01.jpg", "shelf-02.jpg", "carton-02a.jpg"):
        shutil.copy(ROOT / "samples" / name, path)
    return path


def start_demo(folder: Path, data: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [str(ROOT / "scripts/demo"), str(folder), "--data", str(data), *arguments]
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.Popen(command, cwd=folder.parent, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def stop(data: Path) -> None:
    subprocess.run([str(ROOT / "scripts/stop"), "--data", str(data)], check=True, capture_output=True, timeout=TIMEOUT_S)


def uploaded_batches(stack: Stack) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{stack.url}/image_batches?store_name=demo&per_page=100", timeout=60) as response:
        batches: list[dict[str, Any]] = json.load(response)["batches"]
    return batches


@contextmanager
def frozen_worker(stack: Stack) -> Iterator[None]:
    """Freeze the worker while the block runs, and delete the batches of the demo afterwards."""
    stack.kill("worker-1", signal.SIGSTOP)
    try:
        yield
    finally:
        try:
            for batch in uploaded_batches(stack):
                request = urllib.request.Request(f"{stack.url}/image_batches/{batch['id']}", method="DELETE")
                urllib.request.urlopen(request, timeout=60).close()
        finally:
            stack.kill("worker-1", signal.SIGCONT)


def test_the_demo_prints_a_table_and_scripts_stop_ends_all_its_processes(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    port = free_port()
    try:
        process = start_demo(folder, data, "--port", str(port))
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, out + err
        rows = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for line in out.splitlines() if len(cells := line.strip("│ ").split("│")) == 5}
        assert set(rows) == {"shelf-01.jpg", "shelf-02.jpg", "carton-02a.jpg"}
        assert all(row[0] == "done" for row in rows.values())
        assert rows["shelf-01.jpg"][1] != "-"
        assert "(" in rows["carton-02a.jpg"][3]
        assert f"Start page  http://127.0.0.1:{port}/" in out
        pids = [int(path.read_text()) for path in (data / "run").glob("*.pid")]
        started = [process for pid in pids for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))]
        assert len(pids) >= 6
    finally:
        stop(data)
    wait_until(lambda: not {process for process in psutil.process_iter(["status"]) if process.info["status"] != psutil.STATUS_ZOMBIE} & set(started), 15)
    assert is_free(port)


def test_ctrl_c_ends_the_demo_with_one_line(stack: Stack, folder: Path) -> None:
    with frozen_worker(stack):
        process = start_demo(folder, stack.data)
        wait_until(lambda: uploaded_batches(stack) or process.poll() is not None, 240)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("Interrupted; ")
    assert "Traceback" not in err
    assert "To resume" not in err
    assert out == ""


def test_with_a_frozen_worker_the_demo_ends_in_time_and_names_the_status_script_and_the_logs(stack: Stack, folder: Path) -> None:
    with frozen_worker(stack):
        began = time.monotonic()
        process = start_demo(folder, stack.data, "--wait-for", "2")
        out, err = process.communicate(timeout=280)
        assert time.monotonic() - began < 240  # without --wait-for it takes over 300 s
    assert process.returncode == 5
    assert out.count("queued") == 3
    assert f"scripts/status --data {stack.data}" in err
    assert str(stack.data / "logs") in err
