"""A process of the house: it begins only under the parent that it belongs to."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.local.exec_child import PARENT
from scripts.local.installation import ROOT


@pytest.mark.parametrize(("parent", "begins"), [(os.getpid, True), (os.getppid, False)])
def test_a_process_whose_parent_ended_before_it_began_does_not_begin(
    tmp_path: Path,
    parent: Callable[[], int],
    begins: bool,  # noqa: FBT001 -- parametrised
) -> None:
    command = [sys.executable, "-m", "scripts.local.exec_child", "one", str(tmp_path / "one.pid"), "--", "touch", str(tmp_path / "began")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), PARENT: str(parent())}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=30)
    assert (tmp_path / "began").exists() == begins
    assert (tmp_path / "one.pid").exists() == begins
