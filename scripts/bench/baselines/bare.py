"""WSGI applications that do the minimum work for an upload: they read the body in chunks of 1 MB and respond.

``write_body`` also writes the body to a file and syncs the file to disk. The environment variable ``BENCH_FOLDER``
names the folder of these files.
"""

import os
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1024 * 1024
_RESPONSE_BODY = b"{}"
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


def read_body(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Read the whole request body, discard it, and respond with 202."""
    for _ in _read_chunks(environ):
        pass
    return _accepted(start_response)


def write_body(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Write the request body to a new file, sync the file to disk, and respond with 202."""
    path = Path(os.environ["BENCH_FOLDER"]) / uuid.uuid4().hex
    with path.open("wb", buffering=0) as file:
        for part in _read_chunks(environ):
            file.write(part)
        os.fdatasync(file.fileno())
    return _accepted(start_response)


def _read_chunks(environ: dict[str, Any]) -> Iterable[bytes]:
    remaining = int(environ["CONTENT_LENGTH"])
    while remaining > 0:
        part = environ["wsgi.input"].read(min(_CHUNK_BYTES, remaining))
        if not part:
            return
        remaining -= len(part)
        yield part


def _accepted(start_response: StartResponse) -> Iterable[bytes]:
    start_response("202 Accepted", [("Content-Type", "application/json"), ("Content-Length", str(len(_RESPONSE_BODY)))])
    return [_RESPONSE_BODY]
