"""The lines of the security log that a test causes, in both formats."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from shared import telemetry


@dataclass(frozen=True, slots=True)
class SecurityLog:
    """Everything that the channels ``security`` and ``error`` have written, as JSON and as text."""

    json_stream: io.StringIO = field(default_factory=io.StringIO)
    text_stream: io.StringIO = field(default_factory=io.StringIO)

    def lines(self, channel: str = "shelfsight.security") -> list[dict[str, Any]]:
        """Return the parsed JSON lines of one channel."""
        return [line for line in map(json.loads, self.json_stream.getvalue().splitlines()) if line["channel"] == channel]

    @property
    def text(self) -> str:
        """The lines in the text format."""
        return self.text_stream.getvalue()


@contextmanager
def record_security_log() -> Iterator[SecurityLog]:
    """Record the lines that are written until the ``with`` block ends, whatever level the application logs at."""
    recorded = SecurityLog()
    handlers = [logging.StreamHandler(stream) for stream in (recorded.json_stream, recorded.text_stream)]
    handlers[0].setFormatter(telemetry.JsonFormatter("web"))
    handlers[1].setFormatter(telemetry.TextFormatter("web"))
    channels = (telemetry.security, telemetry.errors)
    for channel in channels:
        channel.setLevel(logging.INFO)
        for handler in handlers:
            channel.addHandler(handler)
    try:
        yield recorded
    finally:
        for channel in channels:
            channel.setLevel(logging.NOTSET)
            for handler in handlers:
                channel.removeHandler(handler)
