"""End the connections of clients that occupy a request thread but send or receive too slowly.

A web process handles each request in a thread, and it has few threads. A thread waits for its client while it receives
the head or the body of a request, and while it sends the response. ``SlowClients`` knows these waits. It ends a wait when
a time limit is exceeded. When requests are waiting because all threads are busy, it ends the waits of clients that hold
more than their share of the threads, and the slowest waits. A client on an idle service is never ended for these reasons.

A wait is ended by shutting down the socket, because this is the only way to interrupt a thread in ``recv`` or ``send``.
The kernel counts the bytes (TCP_INFO), so the threads need not count them, and one ``recv`` can receive a whole body.
"""

import fcntl
import socket
import struct
import termios
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Final

from shared.fetch.addresses import client_key

_INTERVAL_S: Final = 0.25
_HEAD_LIMIT_S: Final = 10.0
"""Maximum seconds for receiving the head of a request. nginx allows 15 s, but receives heads without a thread."""
_RESPONSE_STALL_S: Final = 30.0
"""Seconds without an acknowledged byte after which a response is given up, as with ``send_timeout`` in nginx."""
_GRACE_S: Final = 1.0
"""A wait that began less than this many seconds ago is not ended because requests are waiting."""
_FAST_BYTES_PER_S: Final = 128 * 1024
"""A client with at least this average rate is not ended because requests are waiting."""
_SHARE_FAST_BYTES_PER_S: Final = 1024 * 1024
_SHARE_FAST_S: Final = 10.0
"""A wait of a client that holds more than its share is not ended for so many seconds if its average rate is at least this
high. So a client that uploads a lot over a fast connection can complete bodies of 10 MB."""
_TCP_INFO_BYTES: Final = struct.Struct("=QQ")
_TCP_INFO_OFFSET: Final = 120
"""Offset of ``tcpi_bytes_acked`` and ``tcpi_bytes_received`` in ``struct tcp_info`` of Linux (linux/tcp.h)."""


class Wait(Enum):
    """What a request thread waits for."""

    HEAD = "head"
    BODY = "body"
    RESPONSE = "response"


class ClientWait:
    """What a thread receives from its client, or sends to it: one head, one body, or one response.

    ``ended`` is True if the wait was ended because the client was too slow.
    """

    def __init__(self, sock: socket.socket, kind: Wait, client: str) -> None:
        """Create a wait that begins now. The rate of the client is measured from now on.

        :param client: the address of the client, behind any trusted proxy.
        """
        self.sock, self.kind, self.client = sock, kind, client
        self.began_at = self.progress_at = time.monotonic()
        self.bytes_before, self.bytes = _transferred_bytes(sock, kind), 0
        self.ended = False

    def update(self, now: float) -> None:
        """Read from the kernel how many bytes were transferred since the wait began."""
        transferred = _transferred_bytes(self.sock, self.kind) - self.bytes_before
        if transferred != self.bytes:
            self.bytes, self.progress_at = transferred, now

    def rate(self, now: float) -> float:
        """Return the average rate in bytes per second."""
        return self.bytes / max(now - self.began_at, 1e-3)

    def is_overdue(self, now: float) -> bool:
        """Return whether a time limit is exceeded. The time limits of bodies are in ``web.http.body_stream``."""
        if self.kind is Wait.HEAD:
            return now - self.began_at > _HEAD_LIMIT_S
        return self.kind is Wait.RESPONSE and self._is_client_behind() and now - self.progress_at > _RESPONSE_STALL_S

    def is_slow(self, now: float) -> bool:
        """Return whether this wait can be ended for the benefit of waiting requests, because its client is slow."""
        return now - self.began_at >= _GRACE_S and self.rate(now) < _FAST_BYTES_PER_S and self._is_for_client()

    def is_excess_endable(self, now: float) -> bool:
        """Return whether this wait can be ended for the benefit of waiting requests, if its client has too many waits."""
        seconds = now - self.began_at
        is_fast = seconds < _SHARE_FAST_S and self.rate(now) >= _SHARE_FAST_BYTES_PER_S
        return seconds >= _GRACE_S and not is_fast and self._is_for_client()

    def end(self) -> None:
        """Wake up the thread that waits: its ``recv`` returns no bytes, or its ``send`` fails."""
        self.ended = True
        with suppress(OSError):  # the client has disconnected
            # The response to a refused body can still be sent, so that direction stays open.
            self.sock.shutdown(socket.SHUT_RDWR if self.kind is Wait.RESPONSE else socket.SHUT_RD)

    def _is_for_client(self) -> bool:
        """Return whether the client is the side that is waited for."""
        return self.kind is not Wait.RESPONSE or self._is_client_behind()

    def _is_client_behind(self) -> bool:
        """Return whether bytes are waiting until the client accepts them. If none are, the server is the slow side."""
        try:
            (queued,) = struct.unpack("i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)))
        except (OSError, ValueError):
            return False
        return int(queued) > 0


class SlowClients:
    """The waits for clients in this process. Thread-safe.

    One thread of the process calls ``check`` in short intervals.
    """

    def __init__(self) -> None:
        self._waits: set[ClientWait] = set()
        self._lock = threading.Lock()

    @contextmanager
    def register(self, wait: ClientWait) -> Iterator[None]:
        """Allow ``check`` to end a wait of the current thread, until the context ends."""
        with self._lock:
            self._waits.add(wait)
        try:
            yield
        finally:
            with self._lock:
                self._waits.remove(wait)

    def check(self, waiting_requests: int, threads: int) -> int:
        """End the waits that exceed a time limit. Then end others, at most one for each waiting request.

        These are waits of clients that hold more than their share of the threads, whatever their rate. Only if there are
        none, they are waits of slow clients. In both cases, the slowest are ended first. So a single slow client keeps its
        thread while another client holds too many.

        :param waiting_requests: the number of requests for which no thread is free.
        :param threads: the number of threads of the process.
        :returns: the number of waits that were ended.
        """
        with self._lock:  # held until the end, so that no socket is shut down on which the next wait has begun
            now = time.monotonic()
            waits = self._update(now)
            ended = [wait for wait in waits if wait.is_overdue(now)]
            if waiting_requests > len(ended):
                rest = [wait for wait in waits if wait not in ended]
                by_client = _group_by_client(rest)
                # One share is kept for the clients of the waiting requests, which are not known yet.
                candidates = _excess(by_client.values(), threads // (len(by_client) + 1), now)
                candidates = candidates or [wait for wait in rest if wait.is_slow(now)]
                ended += sorted(candidates, key=lambda wait: wait.rate(now))[: waiting_requests - len(ended)]
            for wait in ended:
                wait.end()
        return len(ended)

    def end_slowest_body(self, client: str) -> None:
        """End the receipt of one body, because another request needs the memory of the body.

        It is the slowest body of the other clients that hold more than their share of all bodies, whatever its rate. If
        there are none, it is the slowest body of a slow client, if there is any.

        :param client: the address of the client that needs the memory.
        """
        with self._lock:
            now = time.monotonic()
            bodies = [wait for wait in self._update(now) if wait.kind is Wait.BODY]
            by_client = _group_by_client(bodies)
            by_client.pop(client_key(client), None)
            candidates = _excess(by_client.values(), (len(bodies) + 1) // (len(by_client) + 1), now)
            candidates = candidates or [wait for wait in bodies if wait.is_slow(now)]
            if candidates:
                min(candidates, key=lambda wait: wait.rate(now)).end()

    def _update(self, now: float) -> list[ClientWait]:
        """Return the waits that have not been ended, with their current numbers of bytes."""
        waits = [wait for wait in self._waits if not wait.ended]
        for wait in waits:
            wait.update(now)
        return waits

    def start_checking(
        self, threads: int, count_waiting_requests: Callable[[], int], on_end: Callable[[int], None]
    ) -> None:
        """Start a thread that calls ``check`` until the process ends.

        :param threads: the number of request threads of the process.
        :param count_waiting_requests: returns the number of requests for which no thread is free.
        :param on_end: called with the number of waits that were ended, if there were any.
        """

        def run() -> None:
            waited = False
            while True:
                time.sleep(_INTERVAL_S)  # nothing notifies of a client that sends no more bytes
                waiting = count_waiting_requests()
                # Requests that wait only at one of two checks are normal: a thread becomes free all the time.
                ended = self.check(waiting if waited else 0, threads)
                waited = waiting > 0
                if ended:
                    on_end(ended)

        threading.Thread(target=run, name="slow-clients", daemon=True).start()


def _group_by_client(waits: list[ClientWait]) -> dict[str, list[ClientWait]]:
    """Return the waits of each client. All addresses in an IPv6 /64 network count as one client."""
    by_client = defaultdict(list)
    for wait in waits:
        by_client[client_key(wait.client)].append(wait)
    return by_client


def _excess(waits_by_client: Iterable[list[ClientWait]], share: int, now: float) -> list[ClientWait]:
    """Return the waits that clients have in excess of their share (at least one) and that can be ended.

    The waits with the most bytes are the share of a client. So they make progress and end, even if the client replaces
    each wait that is ended.
    """
    most_bytes_first = (sorted(waits, key=lambda wait: -wait.bytes) for waits in waits_by_client)
    return [wait for waits in most_bytes_first for wait in waits[max(1, share) :] if wait.is_excess_endable(now)]


def _transferred_bytes(sock: socket.socket, kind: Wait) -> int:
    """Return how many bytes the kernel has received on a connection, or, for a response, how many were acknowledged.

    The result is 0 if the socket is closed or is not a TCP socket.
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_OFFSET + _TCP_INFO_BYTES.size)
        acked, received = _TCP_INFO_BYTES.unpack_from(info, _TCP_INFO_OFFSET)
    except (OSError, struct.error):
        return 0
    return int(acked if kind is Wait.RESPONSE else received)


SLOW_CLIENTS: Final = SlowClients()
"""The waits for clients in this process."""
