"""End the connections of clients that occupy a request thread but send or receive too slowly.

A web process handles each request in a thread, and it has few threads. A thread waits for its client while it receives
the head or the body of a request, and while it sends the response. ``SlowClients`` knows these waits. It ends a wait when
a time limit is exceeded, and it ends the slowest waits when requests are waiting because all threads are busy.

A wait is ended by shutting down the socket, because this is the only way to interrupt a thread in ``recv`` or ``send``.
The kernel counts the bytes (TCP_INFO), so the threads need not count them, and one ``recv`` can receive a whole body.
"""

import fcntl
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Final

_INTERVAL_S: Final = 0.25
_HEAD_LIMIT_S: Final = 10.0
"""Maximum seconds for receiving the head of a request. nginx allows 15 s, but receives heads without a thread."""
_RESPONSE_STALL_S: Final = 30.0
"""Seconds without an acknowledged byte after which a response is given up, as with ``send_timeout`` in nginx."""
_GRACE_S: Final = 1.0
"""A wait that began less than this many seconds ago is not ended because requests are waiting."""
_FAST_BYTES_PER_S: Final = 128 * 1024
"""A client with at least this average rate is not ended because requests are waiting."""
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

    def __init__(self, sock: socket.socket, kind: Wait) -> None:
        """Create a wait that begins now. The rate of the client is measured from now on."""
        self.sock, self.kind = sock, kind
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

    def may_be_ended(self, now: float) -> bool:
        """Return whether this wait can be ended for the benefit of waiting requests."""
        if now - self.began_at < _GRACE_S or self.rate(now) >= _FAST_BYTES_PER_S:
            return False
        return self.kind is not Wait.RESPONSE or self._is_client_behind()

    def end(self) -> None:
        """Wake up the thread that waits: its ``recv`` returns no bytes, or its ``send`` fails."""
        self.ended = True
        with suppress(OSError):  # the client has disconnected
            # The response to a refused body can still be sent, so that direction stays open.
            self.sock.shutdown(socket.SHUT_RDWR if self.kind is Wait.RESPONSE else socket.SHUT_RD)

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

    def check(self, waiting_requests: int) -> int:
        """End the waits that exceed a time limit. Then end the slowest waits, at most one for each waiting request.

        :param waiting_requests: the number of requests for which no thread is free.
        :returns: the number of waits that were ended.
        """
        with self._lock:  # held until the end, so that no socket is shut down on which the next wait has begun
            now = time.monotonic()
            waits = [wait for wait in self._waits if not wait.ended]
            for wait in waits:
                wait.update(now)
            ended = [wait for wait in waits if wait.is_overdue(now)]
            slow = sorted((wait for wait in waits if wait.may_be_ended(now)), key=lambda wait: wait.rate(now))
            ended += [wait for wait in slow if wait not in ended][: max(0, waiting_requests - len(ended))]
            for wait in ended:
                wait.end()
        return len(ended)

    def end_slowest_body(self) -> None:
        """End the slowest receipt of a body, if any is slow, because another request needs the memory of its body."""
        with self._lock:
            now = time.monotonic()
            bodies = [wait for wait in self._waits if wait.kind is Wait.BODY and not wait.ended]
            for wait in bodies:
                wait.update(now)
            slow = [wait for wait in bodies if wait.may_be_ended(now)]
            if slow:
                min(slow, key=lambda wait: wait.rate(now)).end()

    def start_checking(self, count_waiting_requests: Callable[[], int], on_end: Callable[[int], None]) -> None:
        """Start a thread that calls ``check`` until the process ends.

        :param count_waiting_requests: returns the number of requests for which no thread is free.
        :param on_end: called with the number of waits that were ended, if there were any.
        """

        def run() -> None:
            waited = False
            while True:
                time.sleep(_INTERVAL_S)  # nothing notifies of a client that sends no more bytes
                waiting = count_waiting_requests()
                # Requests that wait only at one of two checks are normal: a thread becomes free all the time.
                ended = self.check(waiting if waited else 0)
                waited = waiting > 0
                if ended:
                    on_end(ended)

        threading.Thread(target=run, name="slow-clients", daemon=True).start()


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
