"""The progress bars of an upload: that of the upload shows bytes per second, the others show images per second."""

from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text

BYTES: Final = "bytes"
IMAGES: Final = "images"


class SpeedColumn(TransferSpeedColumn):
    """How fast a task advances, in what it counts: its field ``unit``, which is ``BYTES`` or ``IMAGES``."""

    def render(self, task: Task) -> Text:
        """Return the speed; a question mark as long as it is unknown."""
        if task.fields["unit"] == BYTES:
            return super().render(task)
        speed = task.finished_speed or task.speed
        return Text("?" if speed is None else f"{speed:,.1f} images/s", style="progress.data.speed")


def make_progress(console: Console, *, quiet: bool) -> Progress:
    """Return progress bars for tasks with the fields ``count``, a text, and ``unit``."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), SpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=quiet, transient=False)
