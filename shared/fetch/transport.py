"""Sends one request over one connection to a checked address.

The HTTP implementation is httpcore, the engine of httpx. httpx itself is not used, because its cookies, environment
proxies, ``.netrc`` support, redirects and decompression would have to be switched off one by one. httpcore asks its
*network backend* for a connection to a host name. The backend in this module ignores the name and connects to the
addresses that were checked. TLS still verifies the name, and the ``Host`` header still contains it. A connection serves
one request only, because a connection that is kept alive would serve later URLs based on an older check.

httpcore has three gaps: its timeouts apply to single reads only, its header limit does not count interim (1xx)
responses, and it does not limit the framing of chunks. ``_LimitedStream`` enforces these three limits.
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
"""Number of content bytes for which a source may send one byte of chunk framing. If chunks are so small that they need
more framing, parsing 4 MiB of content takes ten seconds. No legitimate source sends such chunks."""
_UNREADABLE_SOURCE: Final = (
    "Cannot read the source: it is unreachable, its certificate is invalid, or its response is not valid HTTP."
)
"""The same sentence is used for all of these causes, because different sentences would disclose which hosts listen on
which ports. The log contains the cause."""


@dataclass(frozen=True, slots=True)
class SourceResponse:
    """The response of a source.

    ``body`` can be read once, inside the ``with`` block of ``open_response``. Its size is not limited here; the caller
    must limit it.
    """

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: Iterator[bytes]

    def header(self, name: bytes) -> bytes:
        """Return the value of a header, or an empty value if the header is missing.

        If there are several values, they are joined with commas.

        :param name: the name in lower case.
        """
        return b", ".join(value for key, value in self.headers if key.lower() == name)


@contextmanager
def open_response(
    destination: Destination,
    headers: list[tuple[str, str]],
    *,
    rules: FetchRules,
    tls: ssl.SSLContext,
    deadline: Deadline,
) -> Iterator[SourceResponse]:
    """Send a ``GET`` request to a destination, and yield the response while the connection is open.

    Reading the body of the response can raise the same errors as this function.

    :raises UpstreamTimeout: when connecting, receiving the response headers, or the whole fetch takes too long.
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
    """Connects to checked addresses only, and limits the number of received bytes."""

    def __init__(self, addresses: tuple[Address, ...], rules: FetchRules, deadline: Deadline) -> None:
        self._addresses = addresses
        self._rules = rules
        self.deadline = deadline
        self.read_allowance = rules.max_header_bytes
        self._stream: httpcore.NetworkStream | None = None

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002 -- already resolved and checked; see the module docstring
        port: int,
        timeout: float | None = None,  # noqa: ARG002 -- the deadline applies instead
        local_address: str | None = None,  # noqa: ARG002 -- httpcore's signature; this service never sets it
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002 -- as for local_address
    ) -> httpcore.NetworkStream:
        """Connect to the first address that accepts a connection.

        An attempt can take half of the time that remains for connecting. The attempt with the last address can take
        all of that time.
        """
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
        """Start the time limit for the response headers.

        The backend calls this method for each part of the request that it sends, so the time counts from the last part.
        """
        self.deadline.start_phase(self._rules.first_byte_s)

    def read_body(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the parts of a response body, and limit the bytes that are received in addition to the content.

        ``read_allowance`` is the number of bytes that may still be received. At the start of the body, it is set to the
        limit for headers, which is also the limit for trailers. For each part, it grows by the size of the part, so
        that content does not use it up, and by some bytes for chunk framing.
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
        """Wrap a TLS stream so that the limits apply to it, and make it the current stream of this backend."""
        self._stream = _LimitedStream(stream, self)
        return self._stream


class _LimitedStream(httpcore.NetworkStream):
    """A connection that applies the deadline to every operation and counts every received byte."""

    def __init__(self, inner: httpcore.NetworkStream, backend: _CheckedBackend) -> None:
        self._inner = inner
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 -- the deadline applies instead
        """Read at most ``max_bytes`` bytes.

        :raises UpstreamError: when the read allowance has been used up.
        """
        if self._backend.read_allowance <= 0:
            raise UpstreamError("The source sends too many bytes of headers, or of chunk framing around its content.")
        data = self._inner.read(min(max_bytes, self._backend.read_allowance), self._backend.deadline.remaining_s())
        self._backend.read_allowance -= len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 -- the deadline applies instead
        """Write a part of the request, and start the time limit for the response headers."""
        self._backend.start_response_phase()
        self._inner.write(buffer, self._backend.deadline.remaining_s())

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 -- the deadline applies instead
    ) -> httpcore.NetworkStream:
        """Perform the TLS handshake within the time limit for connecting."""
        return self._backend.wrap_tls(
            self._inner.start_tls(ssl_context, server_hostname, self._backend.deadline.remaining_s())
        )

    def get_extra_info(self, info: str) -> Any:
        """Return information about the underlying connection."""
        return self._inner.get_extra_info(info)
