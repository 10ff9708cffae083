"""``exec_child`` runs its command only while the parent that started it is running."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.local.exec_child import PARENT_PID
from scripts.local.installation import ROOT


@pytest.mark.parametrize(("parent", "runs"), [(os.getpid, True), (os.getppid, False)])
def test_a_process_whose_parent_ended_first_does_not_run_its_command(
    tmp_path: Path,
    parent: Callable[[], int],
    runs: bool,  # noqa: FBT001 -- parametrised
) -> None:
    command = [sys.executable, "-m", "scripts.local.exec_child", "child", str(tmp_path / "child.pid"), "--", "touch", str(tmp_path / "ran")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), PARENT_PID: str(parent())}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120)
    assert (tmp_path / "ran").exists() == runs
    assert (tmp_path / "child.pid").exists() == runs
