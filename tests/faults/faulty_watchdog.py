"""``python -m tests.faults.faulty_watchdog``: the real watchdog of ``scripts/start``, its processes started with the planted faults."""

import os
from pathlib import Path
from typing import Final

from scripts.local import watchdog
from scripts.local.installation import Installation

PLANT: Final = Path(__file__).with_name("injected")


class FaultyInstallation(Installation):
    """An installation whose Python processes import ``injected/sitecustomize.py`` first."""

    __slots__ = ()

    def environment(self, ports: dict[str, int]) -> dict[str, str]:
        """Return the variables of ``Installation``, with the planted module first on ``PYTHONPATH``."""
        own = super().environment(ports)
        return own | {"PYTHONPATH": os.pathsep.join([str(PLANT), own["PYTHONPATH"]])}


if __name__ == "__main__":
    setattr(watchdog, "Installation", FaultyInstallation)  # noqa: B010 -- the class that watchdog.main instantiates
    watchdog.main()
