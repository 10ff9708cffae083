"""Name resolution with a time limit.

``getaddrinfo`` is used because it applies the configuration of the machine: ``/etc/hosts``, the names that a container
network defines, and the preferred order of addresses. It has no time limit and cannot be cancelled, so it runs in a
separate thread. Each lookup starts a new daemon thread. The threads of an executor are not used, because they delay the
exit of the process and do not exist in a child that is forked later. The number of concurrent lookups is limited, so a
name server that hangs can occupy only a limited number of threads.
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
"""A function that returns all addresses of a name, the preferred ones first. It can block. It raises ``OSError`` when
the name has no address."""


def system_resolver(name: str) -> list[Address]:
    """Resolve a name with the resolver of the operating system.

    :raises OSError: when the name does not exist or no name server answers.
    """
    # Pass bytes, because Python would apply an older version of IDNA to a str. The name is already normalized.
    found = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    return [ip_address(sockaddr[0]) for *_, sockaddr in found]


class NameResolver:
    """Resolves names with a function like ``system_resolver``, at most ``max_concurrent`` at a time. Thread-safe."""

    def __init__(self, resolve: ResolveFunction, max_concurrent: int) -> None:
        self._resolve = resolve
        self._slots = threading.Semaphore(max_concurrent)

    def resolve(self, name: str, deadline: Deadline) -> list[Address]:
        """Resolve a name, without retries.

        :returns: all addresses of the name (at least one), the preferred ones first.
        :raises UrlRefused: when the name cannot be resolved (``unresolvable_host``).
        :raises UpstreamTimeout: when the current phase of the deadline ends first.
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
        except Exception as error:  # noqa: BLE001 -- re-raised in the calling thread
            outcome.put(error)
        finally:
            self._slots.release()
