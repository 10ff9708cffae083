"""Downloads over kept connections, from processes of their own: whole answers, as fast as they come."""

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
    """A file at a server."""

    host: str
    port: int
    path: str
    headers: dict[str, str] = field(default_factory=dict)


class Downloaders:
    """Processes that download, started once. A context manager that ends them."""

    def __init__(self, processes: int, connections: int) -> None:
        """Start them; each downloads over ``connections`` connections at once."""
        self._processes, self._connections = processes, connections
        self._pool = ProcessPoolExecutor(processes, get_context("spawn"))

    def per_second(self, source: Source, seconds: float) -> float:
        """Download one file for a while; give the whole answers a second of all processes together.

        :raises RuntimeError: an answer was not 200.
        """
        jobs = [self._pool.submit(_download, source, self._connections, seconds) for _ in range(self._processes)]
        return sum(job.result() for job in jobs)

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)


def _download(source: Source, connections: int, seconds: float) -> float:
    with ThreadPoolExecutor(connections) as threads:
        jobs = [threads.submit(_over_one, source, seconds) for _ in range(connections)]
        return sum(job.result() for job in jobs)


def _over_one(source: Source, seconds: float) -> float:
    lines = [f"GET {source.path} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in source.headers.items())]
    request = "\r\n".join([*lines, "", ""]).encode()
    buffer = memoryview(bytearray(_BUFFER))
    answers, began = 0, time.perf_counter()
    connection = _connect(source)
    try:
        while (passed := time.perf_counter() - began) < seconds:
            connection.sendall(request)
            if not _receive(connection, buffer):
                connection.close()
                connection = _connect(source)
            answers += 1
    finally:
        connection.close()
    return answers / passed


def _connect(source: Source) -> socket.socket:
    connection = socket.create_connection((source.host, source.port), _TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _receive(connection: socket.socket, buffer: memoryview) -> bool:
    """Receive one answer; False when the server ends the connection after it."""
    got = connection.recv_into(buffer)
    while (end := bytes(buffer[:got]).find(_END)) < 0:
        got += connection.recv_into(buffer[got:])
    head = bytes(buffer[:end]).lower()
    if not head.startswith(b"http/1.1 200"):
        raise RuntimeError(f"answered {head[:100]!r}")
    left = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]) - (got - end - len(_END))
    while left > 0:
        left -= connection.recv_into(buffer)
    return b"connection: close" not in head
