"""Fetches what a URL names, once: redirects, the body within its limit, what is handed back.

Every request is made from nothing: no cookies, no credentials, no proxy of the environment, no connection of an earlier one.
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
from shared.fetch.addresses import led_to, whose
from shared.fetch.concurrency import Gate
from shared.fetch.deadline import Clock
from shared.fetch.dns import Resolver, system_resolver
from shared.fetch.policy import Guard
from shared.fetch.rules import FetchRules
from shared.fetch.transport import Answer, asked
from shared.fetch.urls import Url

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SANE: Final = re.compile(r"[\x20-\x7e]{1,255}")
"""A header value that is kept, handed on or sent back: a stranger's."""
_ALWAYS: Final = [
    ("User-Agent", "Shelfsight"),
    ("Accept", "*/*"),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),
]


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a source sent. ``url`` is where it came from, after redirects; with ``status`` 304 there is no ``data``, for it is still the same.

    ``etag`` and ``last_modified`` are for the next time. ``content_type`` is the source's word, and no more than that.
    """

    url: str
    status: int
    content_type: str | None
    etag: str | None
    last_modified: str | None
    data: bytes

    @property
    def not_modified(self) -> bool:
        """Whether the source says that what the caller has is still right."""
        return self.status == 304


class Fetcher:
    """Fetches, for many threads. It holds no connection and no thread between two fetches, so there is nothing to close.

    Nothing is tried twice; of two addresses of a name the second is dialled when the first cannot be.
    """

    def __init__(self, rules: FetchRules, resolve: Resolver = system_resolver) -> None:
        """Keep the rules.

        :param resolve: gives the addresses of a name; see ``names.Resolver``.
        :raises OSError: ``FETCH_CA_FILE`` cannot be read, or has no certificates in it.
        """
        self._rules = rules
        self._guard = Guard(rules, resolve)
        self._whole = Gate()
        self._sources = Gate()
        self._tls = httpcore.default_ssl_context()
        if rules.ca_file is not None:
            self._tls.load_verify_locations(rules.ca_file)

    def fetch(self, url: str, *, max_bytes: int, etag: str | None = None, last_modified: str | None = None, known_at: str | None = None) -> Fetched:
        """``GET`` a URL.

        :param max_bytes: most bytes of the content, inflated.
        :param etag: of an earlier ``Fetched``; with it, or with ``last_modified``, the answer may be ``not_modified``.
        :param known_at: the ``url`` of that one, by default the one asked for. Where a redirect leads elsewhere by now nothing is said of it.
        :raises UrlRefused: ``bad_url``, ``blocked_host``, ``blocked_address``, ``unresolvable_host``; of a redirect, too.
        :raises UpstreamStatus: the source answers with anything but a 200.
        :raises SourceTooLarge: it sends, or announces, more than ``max_bytes``.
        :raises UpstreamTimeout: one of the time limits.
        :raises UpstreamError: it is away, is not understood, or redirects too often or to nowhere.
        :raises Busy: as much is being fetched as may be at once.
        """
        clock = Clock(self._rules.whole_s)
        known = {"If-None-Match": etag, "If-Modified-Since": last_modified}
        conditions = [(name, value) for name, value in known.items() if value is not None and _SANE.fullmatch(value)]
        at = urls.parse(url)
        known_at = known_at or str(at)
        with self._whole.enter("", at_most=self._rules.max_at_once):
            for _ in range(1 + self._rules.max_redirects):
                got = self._step(at, conditions if str(at) == known_at else [], clock, max_bytes)
                if isinstance(got, Fetched):
                    return got
                at = got
        raise UpstreamError("The source redirects too often.")

    def _step(self, url: Url, conditions: list[tuple[str, str]], clock: Clock, max_bytes: int) -> Fetched | Url:
        """Ask one URL.

        :returns: what it is, or where it went.
        """
        most = self._rules.max_per_source
        with self._sources.enter(url.host, at_most=most):
            target = self._guard.check(url, clock)
            # By address as well: under a wildcard anybody has as many names as they like for somebody else's machine. Behind NAT64 by that of
            # IPv4: the IPv6 ones have all one /64.
            with (
                self._sources.enter(*(whose(led_to(address)) for address in target.addresses), at_most=most),
                asked(target, _ALWAYS + conditions, rules=self._rules, tls=self._tls, clock=clock) as answer,
            ):
                if answer.status in _REDIRECTS:
                    return _next(url, answer)
                if answer.status == 304 and conditions:
                    data = b""
                elif answer.status == 200:
                    data = _body(answer, max_bytes)
                else:
                    raise UpstreamStatus(
                        f"The source answers with status {answer.status}.", extra={"upstream_status": answer.status}
                    )
                return Fetched(
                    url=str(url),
                    status=answer.status,
                    content_type=_kept(answer, b"content-type"),
                    etag=_kept(answer, b"etag"),
                    last_modified=_kept(answer, b"last-modified"),
                    data=data,
                )


def _next(url: Url, answer: Answer) -> Url:
    """Give where a redirect leads; whether that may be fetched is asked there.

    From https only to https: what was asked for on a line that nobody can listen to or change is not taken from one where anybody can.
    """
    locations = {value for key, value in answer.headers if key.lower() == b"location"} - {b""}
    if len(locations) != 1:  # of several, one program takes the first and another the last
        raise UpstreamError("The source redirects to nowhere, or to several places at once.")
    try:
        joined = urljoin(str(url), locations.pop().decode())  # raw UTF-8 happens, though it should not
    except ValueError as error:
        raise UpstreamError("The source redirects to something that is no address.") from error
    there = urls.parse(joined)
    if (url.scheme, there.scheme) == ("https", "http"):
        raise UpstreamError("The source redirects from https to http.")
    return there


def _body(answer: Answer, max_bytes: int) -> bytes:
    """Read the content.

    It was asked for as it is; some stores keep it compressed and send it so all the same, so gzip is undone, within the limit.

    :raises SourceTooLarge: it is announced, or turns out, larger than ``max_bytes``.
    :raises UpstreamError: it comes in another encoding, or is not what it says.
    """
    announced = _header(answer, b"content-length")
    if announced and int(announced) > max_bytes:  # at most 20 digits: h11 has seen to that
        raise _too_large(max_bytes)
    encoding = _header(answer, b"content-encoding").strip().lower()
    if encoding in {b"gzip", b"x-gzip"}:
        return _gathered(_inflated(answer.body, max_bytes), max_bytes)
    if encoding not in {b"", b"identity"}:
        raise UpstreamError("The source sends its content in an encoding that was not asked for.")
    return _gathered(answer.body, max_bytes)


def _gathered(parts: Iterable[bytes], max_bytes: int) -> bytes:
    whole = bytearray()
    for part in parts:
        whole += part
        if len(whole) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(whole)


def _inflated(parts: Iterable[bytes], max_bytes: int) -> Iterable[bytes]:
    """Inflate gzip; no part is longer than the limit and one byte, however little it came from."""
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        for part in parts:
            yield stream.decompress(part, max_bytes + 1)
            # What is left over after so much is more than the limit allows, and has been counted as that.
            if stream.unused_data:  # behind the end; zlib would copy all of it again for each further part
                break
    except zlib.error as error:
        raise UpstreamError("The source sends content that is not compressed as it says.") from error
    if not stream.eof or stream.unused_data:
        raise UpstreamError("The source sends content that is not compressed as it says.")


def _too_large(max_bytes: int) -> SourceTooLarge:
    return SourceTooLarge(
        f"The source is larger than {max_bytes:,} bytes.", extra={"limit": "max_source_bytes", "value": max_bytes}
    )


def _header(answer: Answer, name: bytes) -> bytes:
    """Give a header's value, of several all; empty where there is none."""
    return b", ".join(value for key, value in answer.headers if key.lower() == name)


def _kept(answer: Answer, name: bytes) -> str | None:
    value = _header(answer, name).decode("latin-1")
    return value if _SANE.fullmatch(value) else None
