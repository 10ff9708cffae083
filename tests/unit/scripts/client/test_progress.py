"""The progress bars show speeds in what they count."""

import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from scripts.client.progress import BYTES, IMAGES, SpeedColumn, make_progress
from scripts.local.installation import ROOT
from tests.unit.scripts.client.scripted_service import PATIENCE_S, ScriptedService


@pytest.mark.parametrize(("unit", "speed"), [(BYTES, "2.0 kB/s"), (IMAGES, "2,000.0 images/s")])
def test_the_speed_of_a_task_is_in_its_unit(unit: str, speed: str) -> None:
    output, now = StringIO(), 0.0
    progress = make_progress(Console(file=output, width=200, force_terminal=True), quiet=False)
    progress.get_time = lambda: now
    task = progress.add_task("working", total=10_000, count="", unit=unit)
    column = SpeedColumn()
    assert str(column.render(progress.tasks[0])) == "?"
    for now in (1.0, 2.0, 3.0):  # noqa: B007 -- the clock of the progress bar
        progress.update(task, advance=2000)
    assert str(column.render(progress.tasks[0])) == speed


@pytest.mark.slow
def test_waiting_for_results_is_shown_in_images(service: ScriptedService, folder: Path) -> None:
    command = [sys.executable, "-m", "scripts.client.main", str(folder), "--url", service.url, "--wait", "--batch-size", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "160"}
    terminal, other_end = os.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as shown:
        process = subprocess.Popen(command, cwd=folder.parent, env=environment, stdout=subprocess.DEVNULL, stderr=other_end)
        os.close(other_end)
        output = b""
        try:
            while piece := shown.read(65536):
                output += piece
        except OSError:
            pass  # the program has closed its end
        assert process.wait(PATIENCE_S) == 0
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode()).replace("\r", "\n").split("\n")
    last = {name: next(line for line in reversed(lines) if line.startswith(name)) for name in ("uploading", "waiting for results")}
    assert re.search(r"\d+\.\d images/s", last["waiting for results"])
    assert not re.search(r"[0-9] (bytes|kB|MB)/s", last["waiting for results"])
    assert re.search(r"[0-9] (bytes|kB|MB)/s", last["uploading"])
