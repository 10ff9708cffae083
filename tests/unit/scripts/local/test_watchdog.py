"""The guard, as far as it can be seen without a house."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.local import embedded_servers
from scripts.local.installation import House
from scripts.local.watchdog import Guard


def test_a_supervisor_that_ended_is_not_waited_for(tmp_path: Path) -> None:
    guard = Guard(House(tmp_path, 1, 1))
    guard._supervisor = subprocess.Popen([sys.executable, "-c", ""])
    guard._supervisor.wait(60)
    with pytest.raises(embedded_servers.Unusable, match="the supervisor ended while starting"):
        guard._pid("mongod")
