"""Name resolution with a time limit.

``getaddrinfo`` is used because it applies the configuration of the machine: ``/etc/hosts``, a container's own names,
the order of addresses. It has no time limit and cannot be cancelled, so it runs in a thread of its own. Each name gets
a new daemon thread: the threads of an executor delay the exit of the process, and do not exist in a child that is
forked later. The number of concurrent lookups is bounded, so a name server that hangs costs a bounded number of
threads.
"""

import socket
import threading
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from queue import Empty, SimpleQueue

from shared.errors import UrlRefused
from shared.fetch.addresses import Address, unmap
from shared.fetch.deadline import Deadline, timeout_error

ResolveFunction = Callable[[str], Iterable[Address]]
"""Returns all addresses of a name, best first; may block; raises ``OSError`` when the name has none."""


def system_resolver(name: str) -> list[Address]:
    """Resolve a name with the resolver of the operating system.

    :raises OSError: when the name does not exist or no name server answers.
    """
    # As bytes: for a str Python would apply an older IDNA to the name, which is normalized already.
    found = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    return [ip_address(sockaddr[0]) for *_, sockaddr in found]


class NameResolver:
    """Calls a resolve function, with at most ``max_concurrent`` lookups at a time. Thread-safe."""

    def __init__(self, resolve: ResolveFunction, max_concurrent: int) -> None:
        self._resolve = resolve
        self._slots = threading.Semaphore(max_concurrent)

    def resolve(self, name: str, deadline: Deadline) -> list[Address]:
        """Resolve a name once.

        :returns: all addresses, best first; at least one.
        :raises UrlRefused: ``unresolvable_host``.
        :raises UpstreamTimeout: when the phase of the deadline ends first.
        """
        if not self._slots.acquire(timeout=deadline.remaining_s()):
            raise timeout_error()
        outcome: SimpleQueue[list[Address] | Exception] = SimpleQueue()
        try:
            threading.Thread(target=self._lookup, args=(name, outcome), name="resolve", daemon=True).start()
        except RuntimeError:  # the thread did not start, so _lookup will not release the slot
            self._slots.release()
            raise
        try:
            found = outcome.get(timeout=deadline.remaining_s())
        except Empty:
            raise timeout_error() from None
        if isinstance(found, Exception) and not isinstance(found, OSError):
            raise found
        if isinstance(found, OSError) or not found:
            raise UrlRefused(
                "The host of the URL could not be resolved to an address; check the host name.",
                code="unresolvable_host",
            )
        return found

    def _lookup(self, name: str, outcome: SimpleQueue[list[Address] | Exception]) -> None:
        try:
            outcome.put([unmap(address) for address in self._resolve(name)])
        except Exception as error:  # noqa: BLE001 -- raised again in the calling thread
            outcome.put(error)
        finally:
            self._slots.release()
