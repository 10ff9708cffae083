"""Log the progress of a training and its remaining time on standard output and in a file."""

import json
import time
from collections.abc import Callable
from pathlib import Path

LogLine = Callable[[str], None]


class Progress:
    """The progress of a stage, with the times of the last log line and of the last checkpoint.

    :param first_step: number of steps that were done before this run.
    :param steps: total number of steps in the stage.
    """

    def __init__(self, first_step: int, steps: int) -> None:
        self._first_step, self._steps = first_step, steps
        self._started = self._logged = self._saved = time.monotonic()

    def log_due(self, interval_s: float) -> bool:
        """Return whether ``interval_s`` seconds have passed since the last log line; if so, restart the interval."""
        due = time.monotonic() - self._logged >= interval_s
        self._logged = time.monotonic() if due else self._logged
        return due

    def checkpoint_due(self, interval_s: float) -> bool:
        """Return whether ``interval_s`` seconds have passed since the last checkpoint; if so, restart the interval."""
        due = time.monotonic() - self._saved >= interval_s
        self._saved = time.monotonic() if due else self._saved
        return due

    def format_line(self, step: int) -> str:
        """Return a text with the share of completed steps and the estimated remaining time after ``step`` steps."""
        left = (time.monotonic() - self._started) / max(1, step - self._first_step) * (self._steps - step)
        return f"{step / self._steps:4.0%}  step {step}/{self._steps}  {left / 60:.1f} min left"


def open_log(folder: Path) -> LogLine:
    """Return a function that prints a line and appends the line to ``log.jsonl`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)

    def log_line(line: str) -> None:
        print(line, flush=True)  # noqa: T201 -- output of a command
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"at": time.time(), "line": line}) + "\n")

    return log_line
