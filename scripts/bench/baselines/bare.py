"""The floor under any upload: read the body in steps of 1 MB and answer. With and without one durable file.

``BENCH_FOLDER`` says where ``keep`` writes.
"""

import os
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_STEP = 1024 * 1024
_ANSWER = b"{}"
Start = Callable[[str, list[tuple[str, str]]], Any]


def read(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    """Read and answer."""
    for _ in _steps(environ):
        pass
    return _accepted(start_response)


def keep(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    """Read into one file, make it durable, answer."""
    path = Path(os.environ["BENCH_FOLDER"]) / uuid.uuid4().hex
    with path.open("wb", buffering=0) as file:
        for part in _steps(environ):
            file.write(part)
        os.fdatasync(file.fileno())
    return _accepted(start_response)


def _steps(environ: dict[str, Any]) -> Iterable[bytes]:
    left = int(environ["CONTENT_LENGTH"])
    while left > 0:
        part = environ["wsgi.input"].read(min(_STEP, left))
        if not part:
            return
        left -= len(part)
        yield part


def _accepted(start_response: Start) -> Iterable[bytes]:
    start_response("202 Accepted", [("Content-Type", "application/json"), ("Content-Length", str(len(_ANSWER)))])
    return [_ANSWER]
