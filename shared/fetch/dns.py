"""Names become addresses, within a time limit.

``getaddrinfo`` is kept, for it knows what this machine knows: ``/etc/hosts``, a container's own names, the order of addresses. But it blocks
as long as it likes and cannot be broken off, so it runs in a thread of its own. That is a daemon, and made for each name: an executor's
threads hold up the end of the process, and are missing in a child that was forked later. There are only so many at once, so a name server
that hangs costs a bounded number of them.
"""

import socket
import threading
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from queue import Empty, SimpleQueue

from shared.errors import UrlRefused
from shared.fetch.addresses import Address, plain
from shared.fetch.deadline import Clock, too_slow

Resolver = Callable[[str], Iterable[Address]]
"""Gives all addresses of a name, best first; blocks; an ``OSError`` says that there are none."""


def system_resolver(name: str) -> list[Address]:
    """Ask as every program of this machine does.

    :raises OSError: there is no such name, or nobody who knows.
    """
    # As bytes: for a str Python applies an older IDNA on top of what has been normalised already.
    found = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    return [ip_address(where[0]) for *_, where in found]


class Names:
    """Asks a resolver, with at most so many questions open. Of many threads."""

    def __init__(self, resolve: Resolver, at_once: int) -> None:
        """Start nothing yet."""
        self._resolve = resolve
        self._free = threading.Semaphore(at_once)

    def addresses(self, name: str, clock: Clock) -> list[Address]:
        """Ask once.

        :returns: all addresses, best first; at least one.
        :raises UrlRefused: ``unresolvable_host``.
        :raises UpstreamTimeout: the clock's phase ended first.
        """
        if not self._free.acquire(timeout=clock.left()):
            raise too_slow()
        answer: SimpleQueue[list[Address] | Exception] = SimpleQueue()
        try:
            threading.Thread(target=self._ask, args=(name, answer), name="resolve", daemon=True).start()
        except RuntimeError:  # no thread to be had: _ask will not give the place back
            self._free.release()
            raise
        try:
            found = answer.get(timeout=clock.left())
        except Empty:
            raise too_slow() from None
        if isinstance(found, Exception) and not isinstance(found, OSError):
            raise found
        if isinstance(found, OSError) or not found:
            raise UrlRefused("The host of the URL has no address.", code="unresolvable_host")
        return found

    def _ask(self, name: str, answer: SimpleQueue[list[Address] | Exception]) -> None:
        try:
            answer.put([plain(address) for address in self._resolve(name)])
        except Exception as error:  # noqa: BLE001 -- raised again by the one who asked
            answer.put(error)
        finally:
            self._free.release()
