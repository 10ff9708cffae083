"""Fetches the content of a URL: follows redirects, limits the content, and returns it with its validators.

Requests share no state: no cookies, no credentials, no proxy of the environment, no connection of an earlier request.
"""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin

import httpcore

from shared.errors import SourceTooLarge, UpstreamError, UpstreamStatus
from shared.fetch import urls
from shared.fetch.addresses import client_network, effective_address
from shared.fetch.concurrency import ConcurrencyLimit
from shared.fetch.deadline import Deadline
from shared.fetch.dns import ResolveFunction, system_resolver
from shared.fetch.policy import FetchPolicy
from shared.fetch.rules import FetchRules
from shared.fetch.transport import SourceResponse, open_response
from shared.fetch.urls import Url

_REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_SAFE_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]{1,255}")
"""Header values of a source come from a third party: only such values are stored, passed on or sent back."""
_REQUEST_HEADERS: Final = [
    ("User-Agent", "Shelfsight"),
    ("Accept", "*/*"),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),
]


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The content that a source sent, or with ``status`` 304 the fact that it has not changed; ``data`` is empty then.

    ``url`` is the URL after redirects. ``etag`` and ``last_modified`` are validators for the next fetch.
    ``content_type`` is what the source declares; it is not verified.
    """

    url: str
    status: int
    content_type: str | None
    etag: str | None
    last_modified: str | None
    data: bytes

    @property
    def not_modified(self) -> bool:
        """Whether the source reports that the content which the caller holds is still current."""
        return self.status == 304


class Fetcher:
    """Fetches URLs. Thread-safe.

    It holds no connection and no thread between two fetches, so there is nothing to close. A failed request is not
    retried; when the first of two addresses of a name cannot be connected to, the second is tried.

    :param resolve: returns the addresses of a name; see ``dns.ResolveFunction``.
    :raises OSError: when ``FETCH_CA_FILE`` cannot be read, or contains no certificates.
    """

    def __init__(self, rules: FetchRules, resolve: ResolveFunction = system_resolver) -> None:
        self._rules = rules
        self._policy = FetchPolicy(rules, resolve)
        self._total_limit = ConcurrencyLimit()
        self._source_limit = ConcurrencyLimit()
        self._tls = httpcore.default_ssl_context()
        if rules.ca_file is not None:
            self._tls.load_verify_locations(rules.ca_file)

    def fetch(
        self,
        url: str,
        *,
        max_bytes: int,
        etag: str | None = None,
        last_modified: str | None = None,
        validators_url: str | None = None,
    ) -> FetchResult:
        """Send ``GET`` to a URL, follow its redirects, and read the content.

        :param max_bytes: most bytes of the content, after decompression.
        :param etag: of an earlier ``FetchResult``; with it, or with ``last_modified``, the result may be
            ``not_modified``.
        :param validators_url: the ``url`` of that earlier result, by default ``url``. The validators are sent to this
            URL only, so not when a redirect leads elsewhere by now.
        :raises UrlRefused: ``bad_url``, ``blocked_host``, ``blocked_address``, ``unresolvable_host``; for a redirect,
            too.
        :raises UpstreamStatus: when the source responds with any status but 200.
        :raises SourceTooLarge: when the source sends, or declares, more than ``max_bytes``.
        :raises UpstreamTimeout: when a time limit is exceeded.
        :raises UpstreamError: when the source is unreachable, its response is invalid, or it redirects too often or to
            an invalid location.
        :raises Busy: when too many fetches run, in total or for this source.
        """
        deadline = Deadline(self._rules.whole_s)
        validators = {"If-None-Match": etag, "If-Modified-Since": last_modified}
        conditions = [
            (name, value)
            for name, value in validators.items()
            if value is not None and _SAFE_HEADER_VALUE.fullmatch(value)
        ]
        current_url = urls.parse(url)
        validators_url = validators_url or str(current_url)
        with self._total_limit.slot("", limit=self._rules.max_at_once):
            for _ in range(1 + self._rules.max_redirects):
                outcome = self._request(
                    current_url, conditions if str(current_url) == validators_url else [], deadline, max_bytes
                )
                if isinstance(outcome, FetchResult):
                    return outcome
                current_url = outcome
        raise UpstreamError("The source redirects too many times.")

    def _request(
        self, url: Url, conditions: list[tuple[str, str]], deadline: Deadline, max_bytes: int
    ) -> FetchResult | Url:
        """Request one URL.

        :returns: its content, or the URL that it redirects to.
        """
        per_source = self._rules.max_per_source
        with self._source_limit.slot(url.host, limit=per_source):
            destination = self._policy.check(url, deadline)
            # Count by address as well: with a wildcard DNS record an attacker has any number of names for a machine of a
            # third party. Behind NAT64 count by the IPv4 address: the IPv6 addresses all share one /64.
            networks = (client_network(effective_address(address)) for address in destination.addresses)
            with (
                self._source_limit.slot(*networks, limit=per_source),
                open_response(
                    destination, _REQUEST_HEADERS + conditions, rules=self._rules, tls=self._tls, deadline=deadline
                ) as response,
            ):
                if response.status in _REDIRECT_STATUSES:
                    return _redirect_url(url, response)
                if response.status == 304 and conditions:
                    data = b""
                elif response.status == 200:
                    data = _read_content(response, max_bytes)
                else:
                    raise UpstreamStatus(
                        f"The source answers with status {response.status}.", extra={"upstream_status": response.status}
                    )
                return FetchResult(
                    url=str(url),
                    status=response.status,
                    content_type=_safe_header(response, b"content-type"),
                    etag=_safe_header(response, b"etag"),
                    last_modified=_safe_header(response, b"last-modified"),
                    data=data,
                )


def _redirect_url(url: Url, response: SourceResponse) -> Url:
    """Return the URL that a redirect leads to; the policy checks it before the next request.

    A redirect from https must lead to https: content that was requested over a protected connection is not accepted
    over one where an attacker can read or change it.
    """
    locations = {value for key, value in response.headers if key.lower() == b"location"} - {b""}
    if len(locations) != 1:  # of several, some programs follow the first and others the last
        raise UpstreamError("The source redirects without a location, or to several different locations.")
    try:
        joined = urljoin(str(url), locations.pop().decode())  # some sources send raw UTF-8, although they must not
    except ValueError as error:
        raise UpstreamError("The source redirects to a malformed location.") from error
    redirect_url = urls.parse(joined)
    if (url.scheme, redirect_url.scheme) == ("https", "http"):
        raise UpstreamError("The source redirects from https to http.")
    return redirect_url


def _read_content(response: SourceResponse, max_bytes: int) -> bytes:
    """Read the content.

    The request asks for the ``identity`` encoding. Some object stores keep content compressed and send it so all the
    same; therefore gzip is decompressed, within the limit.

    :raises SourceTooLarge: when its declared or actual size exceeds ``max_bytes``.
    :raises UpstreamError: when it has another encoding, or is not valid gzip although declared so.
    """
    declared = _header(response, b"content-length")
    if declared and int(declared) > max_bytes:  # at most 20 digits: h11 checks that
        raise _too_large(max_bytes)
    encoding = _header(response, b"content-encoding").strip().lower()
    if encoding in {b"gzip", b"x-gzip"}:
        return _join(_decompress(response.body, max_bytes), max_bytes)
    if encoding not in {b"", b"identity"}:
        raise UpstreamError(
            "The source sends its content in an encoding that is not supported; supported are identity and gzip."
        )
    return _join(response.body, max_bytes)


def _join(parts: Iterable[bytes], max_bytes: int) -> bytes:
    content = bytearray()
    for part in parts:
        content += part
        if len(content) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(content)


def _decompress(parts: Iterable[bytes], max_bytes: int) -> Iterable[bytes]:
    """Decompress gzip; no yielded part is longer than ``max_bytes`` + 1, whatever the compression ratio."""
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        for part in parts:
            yield stream.decompress(part, max_bytes + 1)
            # If input remains after that many bytes, the content exceeds the limit, and _join has raised an error.
            # Data after the end of the stream: zlib would copy all of it again for each further part.
            if stream.unused_data:
                break
    except zlib.error as error:
        raise UpstreamError("The source declares gzip, but its content is not valid gzip.") from error
    if not stream.eof or stream.unused_data:
        raise UpstreamError("The source declares gzip, but its content is not valid gzip.")


def _too_large(max_bytes: int) -> SourceTooLarge:
    return SourceTooLarge(
        f"The source is larger than {max_bytes:,} bytes.", extra={"limit": "max_source_bytes", "value": max_bytes}
    )


def _header(response: SourceResponse, name: bytes) -> bytes:
    """Return the value of a header; several are joined by commas, a missing one is empty."""
    return b", ".join(value for key, value in response.headers if key.lower() == name)


def _safe_header(response: SourceResponse, name: bytes) -> str | None:
    value = _header(response, name).decode("latin-1")
    return value if _SAFE_HEADER_VALUE.fullmatch(value) else None
