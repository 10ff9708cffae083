"""Structured logs in three channels: ``shelfsight.access``, ``shelfsight.error``, ``shelfsight.security``."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from shared.settings import Telemetry

access: Final = logging.getLogger("shelfsight.access")
errors: Final = logging.getLogger("shelfsight.error")
security: Final = logging.getLogger("shelfsight.security")


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, channel, process, message, and what ``extra={"data": ...}`` holds."""

    def __init__(self, process: str) -> None:
        """Name the process in every line."""
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
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


def configure(log: Telemetry, process: str) -> None:
    """Send all logs to standard error, as JSON lines or as text."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter(f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s")
    handler.setFormatter(JsonLines(process) if log.format == "json" else text)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(log.level.upper())
    for noisy in ("pymongo", "kombu", "amqp", "urllib3", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
