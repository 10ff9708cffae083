"""A folder of marker files that says where the services under test must fail.

``kill/<failpoint>`` kills the first process that reaches the failpoint, and ``stop/<failpoint>`` freezes it. ``crash/<sha256>``
crashes every process that decodes the image with this digest, ``hang/<sha256>`` lets every process hang that reads its header,
and ``crash-model/<width>x<height>`` crashes every process whose model gets an image of this size. Only
``injected/sitecustomize.py`` reads the folder.
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
    "10-image-deletion-uncommitted",
    "10-image-deletion-committed",
    "10-image-files-deleted",
    "11-image-move-uncommitted",
    "11-image-move-committed",
    "12-cancellation-marked",
    "12-cancellation-ended",
    "13-reprocessing-chosen",
    "13-reprocessing-marked",
    "13-reprocessing-queued",
    "13-reprocessing-unmarked",
    "14-files-published",
    "14-before-old-files-deleted",
    "14-old-files-deleted",
)


class FaultPlan:
    """The plan in ``folder``."""

    def __init__(self, folder: Path) -> None:
        """Create the folders."""
        self.folder = folder
        for name in ("kill", "stop", "stopped", "crash", "hang", "crash-model"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def kill_at(self, point: str) -> None:
        """Kill the next process that reaches a failpoint."""
        (self.folder / "kill" / point).touch()

    def stop_at(self, point: str) -> None:
        """Freeze the next process that reaches a failpoint."""
        (self.folder / "stop" / point).touch()

    def crash_on(self, sha256: str) -> None:
        """Crash every process that decodes the image with this digest."""
        (self.folder / "crash" / sha256).touch()

    def hang_on(self, sha256: str) -> None:
        """Let every process hang that reads the header of the image with this digest, or decodes it."""
        (self.folder / "hang" / sha256).touch()

    def crash_model_on(self, size: tuple[int, int]) -> None:
        """Crash every process whose model gets an image of this width and height."""
        (self.folder / "crash-model" / f"{size[0]}x{size[1]}").touch()

    def stopped(self, point: str) -> int | None:
        """Return the pid of the process that is frozen at a failpoint, or None when no process has reached it."""
        try:
            return int((self.folder / "stopped" / point).read_text())
        except FileNotFoundError:
            return None

    def killed(self) -> list[str]:
        """Return the failpoints at which processes were killed, one entry per kill."""
        try:
            return (self.folder / "killed").read_text().split()
        except FileNotFoundError:
            return []

    def armed(self) -> list[str]:
        """Return the failpoints at which the next process will be killed."""
        return [path.name for path in (self.folder / "kill").iterdir()]

    def disarm(self) -> None:
        """Remove the kills that no process has reached yet."""
        for path in (self.folder / "kill").iterdir():
            path.unlink(missing_ok=True)
