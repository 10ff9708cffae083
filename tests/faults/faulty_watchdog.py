"""``python -m tests.faults.faulty_watchdog``: the watchdog of ``scripts/start``, which starts its processes with injected faults."""

import os
from pathlib import Path
from typing import Final

from scripts.local import watchdog
from scripts.local.installation import Installation

INJECTED_PATH: Final = Path(__file__).with_name("injected")


class FaultyInstallation(Installation):
    """An installation whose Python processes import ``injected/sitecustomize.py`` first."""

    __slots__ = ()

    def environment(self, ports: dict[str, int]) -> dict[str, str]:
        """Return the environment of the processes, with the folder ``injected`` first in PYTHONPATH."""
        variables = super().environment(ports)
        return variables | {"PYTHONPATH": os.pathsep.join([str(INJECTED_PATH), variables["PYTHONPATH"]])}


if __name__ == "__main__":
    setattr(watchdog, Installation.__name__, FaultyInstallation)  # the class that ``main`` instantiates
    watchdog.main()
