"""Fetches the content of a URL: follows redirects, limits the size of the content, and returns it with its validators.

Requests share no state. They send no cookies and no credentials, ignore proxies that are set in the environment, and do
not reuse connections.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin

import httpcore

from shared.errors import UpstreamError, UpstreamStatus
from shared.fetch import urls
from shared.fetch.addresses import client_network, effective_address
from shared.fetch.concurrency import ConcurrencyLimit
from shared.fetch.content import IsImage, read_content
from shared.fetch.deadline import Deadline
from shared.fetch.dns import ResolveFunction, system_resolver
from shared.fetch.policy import FetchPolicy
from shared.fetch.rules import FetchRules
from shared.fetch.transport import SourceResponse, open_response
from shared.fetch.urls import Url

_REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_SAFE_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]{1,255}")
"""Pattern for header values that are safe to store and to send. A source is a third party, so a header value that does
not match is discarded."""
_REQUEST_HEADERS: Final = [
    ("User-Agent", "Shelfsight"),
    ("Accept", "*/*"),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),
]


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The content that a source sent.

    If ``status`` is 304, the content has not changed, and ``data`` is empty. ``url`` is the URL after all redirects.
    ``etag`` and ``last_modified`` are validators for the next fetch. ``content_type`` is the value that the source
    declares; it is not verified.
    """

    url: str
    status: int
    content_type: str | None
    etag: str | None
    last_modified: str | None
    data: bytes

    @property
    def not_modified(self) -> bool:
        """Whether the source reports that the caller's copy of the content is still current."""
        return self.status == 304


class Fetcher:
    """Fetches URLs. Thread-safe.

    It holds no connection and no thread between two fetches, so it needs no ``close``. A failed request is not retried,
    but if a name has two addresses and the first one does not accept a connection, the second one is tried.

    :param resolve: function that returns the addresses of a name; see ``dns.ResolveFunction``.
    :raises OSError: when the file that ``FETCH_CA_FILE`` names cannot be read, or contains no certificates.
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
        is_image: IsImage | None = None,
    ) -> FetchResult:
        """Send a ``GET`` request to a URL, follow redirects, and read the content.

        :param max_bytes: maximum size of the content in bytes, after decompression.
        :param etag: the ``etag`` of an earlier ``FetchResult``. If ``etag`` or ``last_modified`` is passed, the result
            can be ``not_modified``.
        :param last_modified: the ``last_modified`` of the earlier ``FetchResult``.
        :param validators_url: the ``url`` of the earlier ``FetchResult``; by default, ``url``. The validators are sent
            to this URL only. If the redirects now lead to another URL, the validators are not sent to it.
        :param is_image: function that decides from the first bytes whether the content can be an image. If it cannot,
            the rest is not read.
        :raises UrlRefused: when the URL, or the target of a redirect, is not allowed (``bad_url``, ``blocked_host``,
            ``blocked_address``, ``unresolvable_host``).
        :raises UpstreamStatus: when the final response has a status other than 200.
        :raises NotAnImage: when the source sends a live stream, or ``is_image`` returns False.
        :raises SourceTooLarge: when the source sends or declares more than ``max_bytes``.
        :raises UpstreamTimeout: when a time limit is exceeded.
        :raises UpstreamError: when the source is unreachable, sends an invalid response, redirects too many times, or
            redirects to an invalid location.
        :raises Busy: when too many fetches are in progress, in total or for this source.
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
                    current_url,
                    conditions if str(current_url) == validators_url else [],
                    deadline,
                    max_bytes,
                    is_image,
                )
                if isinstance(outcome, FetchResult):
                    return outcome
                current_url = outcome
        raise UpstreamError("The source redirects too many times.")

    def _request(
        self,
        url: Url,
        conditions: list[tuple[str, str]],
        deadline: Deadline,
        max_bytes: int,
        is_image: IsImage | None,
    ) -> FetchResult | Url:
        """Request one URL.

        :returns: the content of the URL, or the URL to which it redirects.
        """
        per_source = self._rules.max_per_source
        with self._source_limit.slot(url.host, limit=per_source):
            destination = self._policy.check(url, deadline)
            # Count fetches by address as well as by name, because a wildcard DNS record gives an attacker any number of
            # names for a machine of a third party. Behind NAT64, count by the embedded IPv4 address, because the IPv6
            # addresses of all sources are in the same /64 network.
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
                    data = read_content(response, max_bytes, is_image)
                else:
                    raise UpstreamStatus(
                        f"Unexpected response from the source: status {response.status}, expected 200.",
                        extra={"upstream_status": response.status},
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
    """Return the target URL of a redirect. The policy checks this URL before the next request.

    A redirect from https must lead to https, because the content was requested over a protected connection. Over http,
    an attacker could read or change it.
    """
    locations = {value for key, value in response.headers if key.lower() == b"location"} - {b""}
    if len(locations) != 1:  # if there are several, some programs follow the first and others the last
        raise UpstreamError("The source redirects to no location, or to several different locations.")
    try:
        joined = urljoin(str(url), locations.pop().decode())  # some sources send raw UTF-8, although they must not
    except ValueError as error:
        raise UpstreamError("The source redirects to a malformed location.") from error
    redirect_url = urls.parse(joined)
    if (url.scheme, redirect_url.scheme) == ("https", "http"):
        raise UpstreamError("The source redirects from https to http.")
    return redirect_url


def _safe_header(response: SourceResponse, name: bytes) -> str | None:
    value = response.header(name).decode("latin-1")
    return value if _SAFE_HEADER_VALUE.fullmatch(value) else None
