"""``python -m tests.faults.faulty_watchdog``: the real guard of ``scripts/start``, its processes started with the planted faults."""

import os
from pathlib import Path
from typing import Final

from scripts.local import watchdog
from scripts.local.installation import House

INJECTED_PATH: Final = Path(__file__).with_name("injected")


class FaultInstallation(House):
    """A house whose Python processes import ``injected/sitecustomize.py`` first."""

    __slots__ = ()

    def environment(self, ports: dict[str, int]) -> dict[str, str]:
        """See ``House``."""
        own = super().environment(ports)
        return own | {"PYTHONPATH": os.pathsep.join([str(INJECTED_PATH), own["PYTHONPATH"]])}


if __name__ == "__main__":
    setattr(watchdog, "House", FaultInstallation)  # noqa: B010 -- the name that its main builds a house by
    watchdog.main()
