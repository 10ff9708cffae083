"""Structured logs in three channels: ``shelfsight.access``, ``shelfsight.error`` and ``shelfsight.security``."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from shared.settings import Logging

access: Final = logging.getLogger("shelfsight.access")
errors: Final = logging.getLogger("shelfsight.error")
security: Final = logging.getLogger("shelfsight.security")


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


def configure(log: Logging, process: str) -> None:
    """Send all logs to standard error, as JSON lines or as text. Each line contains the name of the process."""
    handler = logging.StreamHandler(sys.stderr)
    text_formatter = logging.Formatter(f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter(process) if log.format == "json" else text_formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(log.level.upper())
    for library in ("pymongo", "kombu", "amqp", "urllib3", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)
