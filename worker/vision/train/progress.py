"""What a long run says of itself: lines with the time that is left, on the screen and in a file."""

import json
import time
from collections.abc import Callable
from pathlib import Path

Say = Callable[[str], None]


class Clock:
    """Progress of a stage, and when something was last done."""

    def __init__(self, before: int, steps: int) -> None:
        """Begin after ``before`` of ``steps``."""
        self._before, self._steps = before, steps
        self._began = self._said = self._saved = time.monotonic()

    def said(self, every: float) -> bool:
        """Tell whether it is time to say something: the last time is so many seconds ago."""
        due = time.monotonic() - self._said >= every
        self._said = time.monotonic() if due else self._said
        return due

    def saved(self, every: float) -> bool:
        """Tell whether it is time to save."""
        due = time.monotonic() - self._saved >= every
        self._saved = time.monotonic() if due else self._saved
        return due

    def line(self, step: int) -> str:
        """Write how far it is, and how long it will take."""
        left = (time.monotonic() - self._began) / max(1, step - self._before) * (self._steps - step)
        return f"{step / self._steps:4.0%}  step {step}/{self._steps}  {left / 60:.1f} min left"


def write_log(folder: Path) -> Say:
    """Give a function that prints a line and keeps it in ``log.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        print(line, flush=True)  # noqa: T201 -- the progress of a tool
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"at": time.time(), "line": line}) + "\n")

    return say
