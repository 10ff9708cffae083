"""A folder that tells the services under test where to die.

``kill/<point>`` ends the first process that reaches the point, ``stop/<point>`` freezes it, ``poison/<sha256>`` crashes any
process that decodes such a picture. The services read it through ``injected/sitecustomize.py`` only.
"""

from pathlib import Path
from typing import Final

VARIABLE: Final = "SHELFSIGHT_FAULT_PLAN"
FAILPOINTS: Final = (
    "1-spool-written",
    "2-committed",
    "3-rung",
    "4-claimed",
    "5-original-kept",
    "5-looking",
    "5-variants-written",
    "6-before-finish",
    "6-finished",
    "7-before-close",
    "9-before-spool-delete",
)


class FaultPlan:
    """One plan, kept in ``folder``."""

    def __init__(self, folder: Path) -> None:
        """Make the folder."""
        self.folder = folder
        for name in ("kill", "stop", "stopped", "poison"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def kill_at(self, point: str) -> None:
        """Kill the next process that reaches a point."""
        (self.folder / "kill" / point).touch()

    def stop_at(self, point: str) -> None:
        """Freeze the next process that reaches a point."""
        (self.folder / "stop" / point).touch()

    def poison(self, sha256: str) -> None:
        """Crash whoever decodes this picture."""
        (self.folder / "poison" / sha256).touch()

    def stopped(self, point: str) -> int | None:
        """Give the pid of the process that froze at a point, or None so far."""
        try:
            return int((self.folder / "stopped" / point).read_text())
        except FileNotFoundError:
            return None

    def killed(self) -> list[str]:
        """Name the points at which processes were killed, one entry a kill."""
        try:
            return (self.folder / "killed").read_text().split()
        except FileNotFoundError:
            return []

    def armed(self) -> list[str]:
        """Name the points at which a kill is still due."""
        return [path.name for path in (self.folder / "kill").iterdir()]

    def disarm(self) -> None:
        """Take back the kills that nobody has reached yet."""
        for path in (self.folder / "kill").iterdir():
            path.unlink(missing_ok=True)
