"""Measure the memory that an upload in progress needs in the web process."""

import os
import socket
import time
from contextlib import ExitStack
from functools import partial
from typing import Final

from scripts.bench.http_client import PATH, ClientGroup
from scripts.bench.process_memory import measure_peak
from scripts.bench.report import Row, Target
from scripts.bench.sample_uploads import Upload
from scripts.bench.servers import WEB, Gunicorn, Servers, running
from scripts.local.servers.ports import LOOPBACK

_AT_MOST: Final = 2.5
_TIMEOUT_S: Final = 60.0
_ARRIVAL_S: Final = 0.5
_RECEIVE_BYTES: Final = 65536


def measure(servers: Servers, cases: dict[str, tuple[Upload, int]], small: Upload) -> list[Row]:
    """Measure by how much the web process's memory grows per request while concurrent uploads are in progress.

    Each case uses a new web process.

    :param cases: for each case, by name, the upload and the number of concurrent requests.
    :param small: an upload that is sent first, to warm up the process.
    """
    rows = []
    for number, (name, (upload, concurrent)) in enumerate(cases.items()):
        app = Gunicorn(f"memory-{number}", WEB, servers.environment, servers.folder)
        with running(app):
            group = ClientGroup.create(1, app.port)
            group.burst(small, 3)
            group.close()
            peak = measure_peak(app.worker_pid, partial(_hold, app.port, upload, concurrent))
        per_request = peak / concurrent
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


def _hold(port: int, upload: Upload, concurrent: int) -> None:
    """Keep ``concurrent`` uploads in progress at the same time, and then complete them.

    To do so, send each upload without its last byte, give the server time to read, and then send the last bytes.
    """
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
        for _ in range(concurrent):
            connection = stack.enter_context(socket.create_connection((LOOPBACK, port), _TIMEOUT_S))
            key = f"Idempotency-Key: {os.urandom(8).hex()}"
            connection.sendall(("\r\n".join([*headers, key]) + "\r\n\r\n").encode() + upload.body[:-1])
            connections.append(connection)
        time.sleep(_ARRIVAL_S)  # gives the server time to read the bytes that are left in the sockets
        for connection in connections:
            connection.sendall(upload.body[-1:])
        for connection in connections:
            response = b""
            while part := connection.recv(_RECEIVE_BYTES):
                response += part
            if not response.startswith(b"HTTP/1.1 202"):
                raise RuntimeError(f"Unexpected response to an upload, expected status 202: {response[:200]!r}")
