"""Why a worker of this start cannot use its model, read off its log: ``/readyz``, which anybody may ask, names no path and no file."""

import json
from pathlib import Path


class ModelTrouble:
    """What a worker of this start writes of a model that it cannot use. Others' signs, and those of the last start, say nothing of this one."""

    def __init__(self, log: Path) -> None:
        """Remember where the log ends before anything is started."""
        self.log = log
        self._begin = log.stat().st_size if log.exists() else 0

    def said(self) -> str | None:
        """Give the last such sentence."""
        if not self.log.exists():
            return None
        with self.log.open("rb") as log:
            log.seek(self._begin)
            lines = log.read().decode(errors="replace").splitlines()
        said = [_message(line).partition("no model: ")[2] for line in lines if "no model: " in line]
        return said[-1] if said else None


def _message(line: str) -> str:
    """Give the message of a line of a log, whose format is a setting."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line
