"""``python -m tests.faults.guard``: the real guard of ``scripts/start``, its processes started with the planted faults."""

import os
from pathlib import Path
from typing import Final

from scripts.local import guard
from scripts.local.house import House

PLANT: Final = Path(__file__).with_name("plant")


class FaultHouse(House):
    """A house whose Python processes import ``plant/sitecustomize.py`` first."""

    __slots__ = ()

    def environment(self, ports: dict[str, int]) -> dict[str, str]:
        """See ``House``."""
        own = super().environment(ports)
        return own | {"PYTHONPATH": os.pathsep.join([str(PLANT), own["PYTHONPATH"]])}


if __name__ == "__main__":
    setattr(guard, "House", FaultHouse)  # noqa: B010 -- the name that its main builds a house by
    guard.main()
