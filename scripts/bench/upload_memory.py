"""How much memory an upload in flight costs the web process."""

import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from scripts.bench.http_client import PATH, Crowd
from scripts.bench.report import Row, Target
from scripts.bench.sample_uploads import Upload
from scripts.bench.servers import WEB, Gunicorn, Servers, running
from scripts.local.embedded_servers import LOOPBACK

_AT_MOST: Final = 2.5
_TIMEOUT_S: Final = 60.0
_ARRIVE_S: Final = 0.5
_ANSWER_BYTES: Final = 65536


def measure(servers: Servers, cases: dict[str, tuple[Upload, int]], small: Upload) -> list[Row]:
    """Hold uploads in flight together, each in a fresh web process, and read the peak of its memory.

    :param cases: name: the upload, and how many at the same time.
    :param small: warms the process up before.
    """
    rows = []
    for number, (name, (upload, together)) in enumerate(cases.items()):
        app = Gunicorn(f"memory-{number}", WEB, servers.environment, servers.folder)
        with running(app):
            crowd = Crowd.of(1, app.port)
            crowd.burst(small, 3)
            crowd.close()
            peak = _peak(app.worker_pid, partial(_hold, app.port, upload, together))
        per_request = peak / together
        rows.append(
            Row(
                f"{name}: extra memory a request / inflated body",
                per_request / 2**20,
                "MiB",
                upload.inflated / 2**20,
                per_request / upload.inflated,
                Target(at_most=_AT_MOST),
            )
        )
    return rows


def _peak(pid: int, work: Callable[[], None]) -> int:
    """Give by how many bytes a process grew at its largest while ``work`` ran."""
    before = _status(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts anew from here
    work()
    return _status(pid, "VmHWM") - before


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no {name}")


def _hold(port: int, upload: Upload, together: int) -> None:
    """Send all of each upload but its last byte, and the last bytes only when every server thread has read the rest."""
    headers = [
        f"POST {PATH} HTTP/1.1",
        f"Host: {LOOPBACK}:{port}",
        f"Content-Type: {upload.content_type}",
        f"Content-Length: {len(upload.body)}",
        "Connection: close",
    ]
    if upload.gzipped:
        headers.append("Content-Encoding: gzip")
    with ExitStack() as stack:
        connections = []
        for _ in range(together):
            connection = stack.enter_context(socket.create_connection((LOOPBACK, port), _TIMEOUT_S))
            key = f"Idempotency-Key: {os.urandom(8).hex()}"
            connection.sendall(("\r\n".join([*headers, key]) + "\r\n\r\n").encode() + upload.body[:-1])
            connections.append(connection)
        time.sleep(_ARRIVE_S)  # what is left in the sockets gets read
        for connection in connections:
            connection.sendall(upload.body[-1:])
        for connection in connections:
            answer = b""
            while part := connection.recv(_ANSWER_BYTES):
                answer += part
            if not answer.startswith(b"HTTP/1.1 202"):
                raise RuntimeError(f"An upload was answered: {answer[:200]!r}")
