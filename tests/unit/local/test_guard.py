"""The guard, as far as it can be seen without a house."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.local import embedded
from scripts.local.guard import Guard
from scripts.local.house import House


def test_a_supervisor_that_ended_is_not_waited_for(tmp_path: Path) -> None:
    guard = Guard(House(tmp_path, 1, 1))
    guard._supervisor = subprocess.Popen([sys.executable, "-c", ""])
    guard._supervisor.wait(60)
    with pytest.raises(embedded.Unusable, match="the supervisor ended while starting"):
        guard._pid("mongod")
