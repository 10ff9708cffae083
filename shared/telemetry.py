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
    """Formats a record as one line of JSON: time, level, channel, process, message, and the members of ``extra={"data": ...}``."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
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
    """Send all logs to standard error, as JSON lines or as text, with the name of the process in each."""
    handler = logging.StreamHandler(sys.stderr)
    text_formatter = logging.Formatter(f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter(process) if log.format == "json" else text_formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(log.level.upper())
    for library in ("pymongo", "kombu", "amqp", "urllib3", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)
