"""Measure download rates over persistent connections, from separate processes."""

import socket
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Self

_TIMEOUT_S = 30.0
_BUFFER = 1 << 20
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Source:
    """A file on an HTTP server."""

    host: str
    port: int
    path: str
    headers: dict[str, str] = field(default_factory=dict)


class Downloaders:
    """Processes that download files. They start once, and end when the context ends.

    :param connections: number of simultaneous connections in each process.
    """

    def __init__(self, processes: int, connections: int) -> None:
        self._processes, self._connections = processes, connections
        self._pool = ProcessPoolExecutor(processes, get_context("spawn"))

    def per_second(self, source: Source, seconds: float) -> float:
        """Download one file repeatedly for ``seconds``, and return the responses per second, summed over all processes.

        :raises RuntimeError: when the status of a response is not 200.
        """
        jobs = [self._pool.submit(_download, source, self._connections, seconds) for _ in range(self._processes)]
        return sum(job.result() for job in jobs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def _download(source: Source, connections: int, seconds: float) -> float:
    with ThreadPoolExecutor(connections) as threads:
        jobs = [threads.submit(_download_over_one_connection, source, seconds) for _ in range(connections)]
        return sum(job.result() for job in jobs)


def _download_over_one_connection(source: Source, seconds: float) -> float:
    lines = [f"GET {source.path} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in source.headers.items())]
    request = "\r\n".join([*lines, "", ""]).encode()
    buffer = memoryview(bytearray(_BUFFER))
    responses, started = 0, time.perf_counter()
    connection = _connect(source)
    try:
        while (elapsed := time.perf_counter() - started) < seconds:
            connection.sendall(request)
            if not _receive(connection, buffer):
                connection.close()
                connection = _connect(source)
            responses += 1
    finally:
        connection.close()
    return responses / elapsed


def _connect(source: Source) -> socket.socket:
    connection = socket.create_connection((source.host, source.port), _TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _receive(connection: socket.socket, buffer: memoryview) -> bool:
    """Receive one response; return False if the server closes the connection after it."""
    received = connection.recv_into(buffer)
    while (end := bytes(buffer[:received]).find(_END)) < 0:
        received += connection.recv_into(buffer[received:])
    head = bytes(buffer[:end]).lower()
    if not head.startswith(b"http/1.1 200"):
        raise RuntimeError(f"Unexpected response: {head[:100]!r}, expected status 200.")
    remaining = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]) - (received - end - len(_END))
    while remaining > 0:
        remaining -= connection.recv_into(buffer)
    return b"connection: close" not in head
