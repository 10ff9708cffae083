"""Read from a worker's log why the worker cannot use its model.

``/readyz`` does not return the reason, because it is public and must not reveal paths and file names.
"""

import json
from pathlib import Path
from typing import Final

_PREFIX: Final = "no model: "


class ModelErrorLog:
    """Reads the model errors that a worker logs after this object was created.

    Older log lines are ignored, because they describe the model of an earlier start. The worker heartbeats in the
    database are not read, because they, too, can be from an earlier start.
    """

    def __init__(self, log: Path) -> None:
        """Store the current end position of the log, because only lines after it will be read.

        Create this object before any process is started, so that no error of this start is missed.
        """
        self.log = log
        self._begin = log.stat().st_size if log.exists() else 0

    def read_last(self) -> str | None:
        """Return the last model error logged after this object was created; None if there is none."""
        if not self.log.exists():
            return None
        with self.log.open("rb") as log:
            log.seek(self._begin)
            lines = log.read().decode(errors="replace").splitlines()
        errors = [_message(line).partition(_PREFIX)[2] for line in lines if _PREFIX in line]
        return errors[-1] if errors else None


def _message(line: str) -> str:
    """Return the message of a log line, which is JSON or text, depending on ``LOG_FORMAT``."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line
