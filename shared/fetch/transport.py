"""One request over one connection to a checked address.

httpcore (the engine of httpx) speaks HTTP here, and nothing above it: cookies, proxies of the environment, ``.netrc``, redirects and inflating
live in httpx and would have to be switched off one by one. It asks its *network backend* for a connection by name; ours dials the addresses
that were checked and never looks at the name, which stays what TLS verifies and ``Host`` says. A connection serves one request: one that
lived on would serve later URLs by an older check.

Its time limits are those of single reads, its limit of headers does not count interim (1xx) answers, and it has none of what stands between
chunks: the stream below sees to all three.
"""

import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import httpcore

from shared.errors import UpstreamError
from shared.fetch.addresses import Address
from shared.fetch.deadline import Clock, too_slow
from shared.fetch.policy import Target
from shared.fetch.rules import FetchRules

_CHUNKS: Final = 8
"""Bytes of a body that a byte around them is allowed for: chunks so small that their borders take more cost ten seconds of parsing in 4 MiB, and are nobody's honest ones."""
_UNREADABLE: Final = "The source could not be read: it is away, its certificate is not in order, or it does not keep to HTTP."
"""One sentence for all of these: which of them it is would tell who listens where. The log has the cause."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source answers. ``body`` can be read once, inside the ``with``; how much of it is the reader's business."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: Iterator[bytes]


@contextmanager
def asked(
    target: Target, headers: list[tuple[str, str]], *, rules: FetchRules, tls: ssl.SSLContext, clock: Clock
) -> Iterator[Answer]:
    """``GET`` a target.

    :raises UpstreamTimeout: connecting, the first answer or the whole took too long.
    :raises UpstreamError: it cannot be reached or understood. Both are raised by reading the body, too.
    """
    url = target.url
    scheme, host = url.scheme.encode(), url.host.encode()
    wire = _Wire(target.addresses, rules, clock)
    connection = httpcore.HTTPConnection(httpcore.Origin(scheme, host, url.port), ssl_context=tls, network_backend=wire)
    where = httpcore.URL(scheme=scheme, host=host, port=url.port, target=url.target.encode())
    try:
        answer = connection.handle_request(httpcore.Request("GET", where, headers=[("Host", url.authority), *headers]))
        clock.begin()
        yield Answer(answer.status, answer.headers, wire.body(answer.iter_stream()))
    except httpcore.TimeoutException as error:
        raise too_slow() from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise UpstreamError(_UNREADABLE) from error
    finally:
        wire.hang_up()


class _Wire(httpcore.NetworkBackend):
    """Dials what was checked, and counts what comes in."""

    def __init__(self, addresses: tuple[Address, ...], rules: FetchRules, clock: Clock) -> None:
        self._addresses = addresses
        self._rules = rules
        self.clock = clock
        self.allowance = rules.max_header_bytes
        self._stream: httpcore.NetworkStream | None = None

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002 -- resolved and checked already, see the module
        port: int,
        timeout: float | None = None,  # noqa: ARG002 -- the clock's
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers; while there is another one left, in half of the time."""
        self.clock.begin(self._rules.connect_s)
        *others, last = self._addresses
        for address in others:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return self._dial(address, port, self.clock.left() / 2)
        return self._dial(last, port, self.clock.left())

    def _dial(self, address: Address, port: int, within_s: float) -> httpcore.NetworkStream:
        self._stream = _Stream(httpcore.SyncBackend().connect_tcp(str(address), port, within_s), self)
        return self._stream

    def begin_answer(self) -> None:
        """The request goes out: from now on the source has its time for all of its headers."""
        self.clock.begin(self._rules.first_byte_s)

    def body(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        """Read a body: what is content in it is not counted, and leaves room for the borders of chunks; trailers have what headers have."""
        self.allowance = self._rules.max_header_bytes
        for part in parts:
            self.allowance += len(part) + len(part) // _CHUNKS
            yield part

    def hang_up(self) -> None:
        """Close what is open."""
        if self._stream is not None:
            self._stream.close()

    def secured(self, stream: httpcore.NetworkStream) -> httpcore.NetworkStream:
        """Go on over TLS."""
        self._stream = _Stream(stream, self)
        return self._stream


class _Stream(httpcore.NetworkStream):
    """A connection whose every step ends with the clock, and whose bytes are counted."""

    def __init__(self, inner: httpcore.NetworkStream, wire: _Wire) -> None:
        self._inner = inner
        self._wire = wire

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        """See ``httpcore.NetworkStream``."""
        if self._wire.allowance <= 0:
            raise UpstreamError("The source sends more around its content than is read.")
        data = self._inner.read(min(max_bytes, self._wire.allowance), self._wire.clock.left())
        self._wire.allowance -= len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """See ``httpcore.NetworkStream``."""
        self._wire.begin_answer()
        self._inner.write(buffer, self._wire.clock.left())

    def close(self) -> None:
        """See ``httpcore.NetworkStream``."""
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """See ``httpcore.NetworkStream``; it is a part of connecting."""
        return self._wire.secured(self._inner.start_tls(ssl_context, server_hostname, self._wire.clock.left()))

    def get_extra_info(self, info: str) -> Any:
        """See ``httpcore.NetworkStream``."""
        return self._inner.get_extra_info(info)
