"""Sends one request over one connection to a checked address.

httpcore (the engine of httpx) implements HTTP here. httpx itself is not used: its cookies, proxies of the environment,
``.netrc``, redirects and decompression would have to be switched off one by one. httpcore asks its *network backend*
for a connection by host name; the backend below connects to the addresses that were checked and ignores the name, which
TLS still verifies and the ``Host`` header still carries. A connection serves one request: a connection that is kept
alive would serve later URLs on the basis of an older check.

The timeouts of httpcore apply to single reads, its limit of headers does not count interim (1xx) responses, and it does
not limit the framing of chunks. The stream below enforces all three limits.
"""

import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import httpcore

from shared.errors import UpstreamError
from shared.fetch.addresses import Address
from shared.fetch.deadline import Deadline, timeout_error
from shared.fetch.policy import Destination
from shared.fetch.rules import FetchRules

_CONTENT_PER_FRAMING_BYTE: Final = 8
"""Bytes of content that allow one more byte of chunk framing. Chunks so small that their framing takes more cost ten
seconds of parsing for 4 MiB, and no legitimate source sends them."""
_UNREADABLE_SOURCE: Final = (
    "The source could not be read: it is unreachable, its certificate is invalid, or its response is not valid HTTP."
)
"""One sentence for all of these causes: a distinction would disclose which hosts listen on which ports. The log has the
cause."""


@dataclass(frozen=True, slots=True)
class SourceResponse:
    """The response of a source.

    ``body`` can be read once, inside the ``with`` block of ``open_response``; the reader limits the size of the
    content.
    """

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: Iterator[bytes]


@contextmanager
def open_response(
    destination: Destination,
    headers: list[tuple[str, str]],
    *,
    rules: FetchRules,
    tls: ssl.SSLContext,
    deadline: Deadline,
) -> Iterator[SourceResponse]:
    """Send ``GET`` to a destination, and yield its response while the connection is open.

    Reading the body raises the same errors.

    :raises UpstreamTimeout: when connecting, the response headers or the whole fetch take too long.
    :raises UpstreamError: when the source is unreachable or its response is not valid HTTP.
    """
    url = destination.url
    scheme, host = url.scheme.encode(), url.host.encode()
    backend = _CheckedBackend(destination.addresses, rules, deadline)
    connection = httpcore.HTTPConnection(
        httpcore.Origin(scheme, host, url.port), ssl_context=tls, network_backend=backend
    )
    request_url = httpcore.URL(scheme=scheme, host=host, port=url.port, target=url.request_target.encode())
    try:
        response = connection.handle_request(
            httpcore.Request("GET", request_url, headers=[("Host", url.authority), *headers])
        )
        deadline.start_phase()
        yield SourceResponse(response.status, response.headers, backend.read_body(response.iter_stream()))
    except httpcore.TimeoutException as error:
        raise timeout_error() from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise UpstreamError(_UNREADABLE_SOURCE) from error
    finally:
        backend.close()


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to checked addresses only, and limits the bytes received."""

    def __init__(self, addresses: tuple[Address, ...], rules: FetchRules, deadline: Deadline) -> None:
        self._addresses = addresses
        self._rules = rules
        self.deadline = deadline
        self.read_allowance = rules.max_header_bytes
        self._stream: httpcore.NetworkStream | None = None

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002 -- already resolved and checked, see the module docstring
        port: int,
        timeout: float | None = None,  # noqa: ARG002 -- the deadline applies
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Connect to the first address that accepts; each address but the last has half of the remaining time."""
        self.deadline.start_phase(self._rules.connect_s)
        *others, last = self._addresses
        for address in others:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return self._connect(address, port, self.deadline.remaining_s() / 2)
        return self._connect(last, port, self.deadline.remaining_s())

    def _connect(self, address: Address, port: int, timeout_s: float) -> httpcore.NetworkStream:
        self._stream = _LimitedStream(httpcore.SyncBackend().connect_tcp(str(address), port, timeout_s), self)
        return self._stream

    def start_response_phase(self) -> None:
        """Start the time limit of the response headers; called when the request is sent."""
        self.deadline.start_phase(self._rules.first_byte_s)

    def read_body(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the parts of a body, and extend the read allowance by each of them.

        Content is not counted, and allows some bytes of chunk framing. Trailers have the same limit as headers.
        """
        self.read_allowance = self._rules.max_header_bytes
        for part in parts:
            self.read_allowance += len(part) + len(part) // _CONTENT_PER_FRAMING_BYTE
            yield part

    def close(self) -> None:
        """Close the connection, if one is open."""
        if self._stream is not None:
            self._stream.close()

    def wrap_tls(self, stream: httpcore.NetworkStream) -> httpcore.NetworkStream:
        """Apply the limits to a TLS stream, and use it from now on."""
        self._stream = _LimitedStream(stream, self)
        return self._stream


class _LimitedStream(httpcore.NetworkStream):
    """A connection that keeps every operation to the deadline and counts every byte received."""

    def __init__(self, inner: httpcore.NetworkStream, backend: _CheckedBackend) -> None:
        self._inner = inner
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        """Read at most ``max_bytes``.

        :raises UpstreamError: when the read allowance is exhausted.
        """
        if self._backend.read_allowance <= 0:
            raise UpstreamError("The source sends too many bytes of headers or chunk framing around its content.")
        data = self._inner.read(min(max_bytes, self._backend.read_allowance), self._backend.deadline.remaining_s())
        self._backend.read_allowance -= len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """Write a part of the request, and start the time limit of the response headers."""
        self._backend.start_response_phase()
        self._inner.write(buffer, self._backend.deadline.remaining_s())

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Perform the TLS handshake, within the time limit of connecting."""
        return self._backend.wrap_tls(
            self._inner.start_tls(ssl_context, server_hostname, self._backend.deadline.remaining_s())
        )

    def get_extra_info(self, info: str) -> Any:
        """Return information about the underlying connection."""
        return self._inner.get_extra_info(info)
