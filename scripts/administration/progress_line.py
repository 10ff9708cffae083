"""Shows the progress of a command."""

import sys
import time
from typing import Final

import click

from shared.storage.migrations.run import Progress

_LINE_INTERVAL_S: Final = 5.0


class ProgressLine:
    """Shows the progress: on a terminal in one line that changes, otherwise in a line for each step and every 5 s."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._step, self._next_at, self._width = "", 0.0, 0

    def show(self, progress: Progress) -> None:
        """Show the progress."""
        text = f"{progress.step}{describe_amount(progress)}"
        if self._is_terminal:
            click.echo(f"\r{text:<{self._width}}", nl=False)
            self._width = len(text)
        elif progress.step != self._step or time.monotonic() >= self._next_at:
            click.echo(text)
            self._next_at = time.monotonic() + _LINE_INTERVAL_S
        self._step = progress.step

    def close(self) -> None:
        """End the line on the terminal."""
        if self._width:
            click.echo()
            self._width = 0


def describe_amount(progress: Progress) -> str:
    """Return how much of a step is done, to be written after its name; empty if this is unknown."""
    if not progress.total:
        return ""
    return f": {progress.done:,} of about {progress.total:,} ({min(100, 100 * progress.done // progress.total)}%)"
