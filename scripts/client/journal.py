"""The resume file: which batches were answered, one JSON line each, on disk before the next is counted."""

import json
import os
import uuid
from pathlib import Path
from typing import IO, Any, Self


class Journal:
    """Answers by the batch's key. A batch that was sent but not written down is sent again with the same key: sent once."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a last line that was cut short counts for nothing."""
        self.path = path
        self.run = uuid.uuid4().hex
        """Names this upload: part of every key, so that uploading the same pictures again later is a new upload."""
        self.answers: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                    if "run" in row:
                        self.run = row["run"]
                    else:
                        self.answers[row["key"]] = row
                except (ValueError, KeyError, TypeError):
                    continue
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """Open the file to add to it."""
        self._file = self.path.open("a", encoding="utf-8")
        if self.path.stat().st_size:
            self._file.write("\n")  # ends a line that was cut short
        else:
            self._append({"run": self.run})
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def add(self, row: dict[str, Any]) -> None:
        """Keep an answer, for good."""
        self.answers[row["key"]] = row
        self._append(row)

    def _append(self, row: dict[str, Any]) -> None:
        assert self._file is not None  # noqa: S101 -- used as a context
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
