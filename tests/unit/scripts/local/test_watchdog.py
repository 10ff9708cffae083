"""The watchdog, as far as it can be tested without a running installation."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.local import embedded_servers
from scripts.local.installation import Installation
from scripts.local.watchdog import Watchdog


def test_a_supervisor_that_ended_is_not_waited_for(tmp_path: Path) -> None:
    watchdog = Watchdog(Installation(tmp_path, 1, 1))
    watchdog._supervisor = subprocess.Popen([sys.executable, "-c", ""])
    watchdog._supervisor.wait(60)
    with pytest.raises(embedded_servers.Unusable, match="the supervisor ended while starting"):
        watchdog._pid("mongod")
