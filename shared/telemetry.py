"""Structured logs in three channels: ``shelfsight.access``, ``shelfsight.error`` and ``shelfsight.security``."""

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Hashable
from datetime import UTC, datetime
from typing import Any, Final

from shared.settings import Logging

access: Final = logging.getLogger("shelfsight.access")
errors: Final = logging.getLogger("shelfsight.error")
security: Final = logging.getLogger("shelfsight.security")
# A program that does not call ``configure``, such as a health check, reports its errors itself and writes no log. Without
# this handler, Python would write warnings to standard error.
logging.getLogger("shelfsight").addHandler(logging.NullHandler())
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters (C0, DEL, C1), line and paragraph separators, the characters that control the direction of text, and
surrogates. A request can contain them. In a log, they could begin a new line, command a terminal, or hide text."""
REPEAT_INTERVAL_S: Final = 60.0
"""An error that a store returns again and again is logged once in this number of seconds."""
_MAX_KINDS: Final = 100


class JsonFormatter(logging.Formatter):
    """Formats a log record as one line of JSON.

    The line contains the time, level, channel, process, and message, and the members of ``extra={"data": ...}``.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return a log record as one line of JSON."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "channel": record.name,
            "process": self._process,
            "message": record.getMessage(),
            **getattr(record, "data", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """Formats a log record as text: one line, and below it the lines of a traceback, if there is one.

    The members of ``extra={"data": ...}`` that have a value follow the message as JSON, so that a client or a request id
    is found in both formats. Unsafe characters are shown as escapes, and the lines of a traceback are indented. Therefore, each line that is not
    indented is the beginning of a record, whatever the messages and the exceptions contain.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return a log record as text."""
        data = {name: value for name, value in getattr(record, "data", {}).items() if value is not None}
        shown = f" {json.dumps(data, ensure_ascii=False, default=str)}" if data else ""
        lines = [f"{self.formatTime(record)} {record.levelname} {self._process} {record.name}: {record.getMessage()}{shown}"]
        if record.exc_info:
            lines += _indented(self.formatException(record.exc_info))
        if record.stack_info:
            lines += _indented(self.formatStack(record.stack_info))
        return "\n".join(_escape(line) for line in lines)


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.split("\n")]


def _escape(text: str) -> str:
    """Replace each unsafe character by an escape sequence of Python for this character."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def configure(log: Logging, process: str) -> None:
    """Send all logs to standard error, as JSON lines or as text. Each line contains the name of the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if log.format == "json" else TextFormatter(process))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(log.level.upper())
    for library in ("pymongo", "kombu", "amqp", "urllib3", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)


class RepeatLimit:
    """Limits how often errors of the same kind are logged. Thread-safe."""

    def __init__(self, interval_s: float) -> None:
        """Let each kind of error be logged once in ``interval_s`` seconds."""
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._logged: dict[Hashable, tuple[float, int]] = {}

    def count_omitted(self, kind: Hashable) -> int | None:
        """Return how often an error of this kind has not been logged since it was logged last.

        If the result is None, this error must not be logged, too. Otherwise, the caller logs it now.
        """
        with self._lock:
            logged_at, omitted = self._logged.get(kind, (float("-inf"), 0))
            if time.monotonic() < logged_at + self._interval_s:
                self._logged[kind] = (logged_at, omitted + 1)
                return None
            if len(self._logged) >= _MAX_KINDS:
                self._logged.clear()
            self._logged[kind] = (time.monotonic(), 0)
            return omitted
