"""Parses URLs strictly. A URL that different parsers could interpret differently is refused.

Hosts are returned in one canonical spelling. An address is recognized in every notation, and a name is returned in
lower-case ASCII without a trailing dot. Therefore, the host that is compared with the lists of allowed and blocked
hosts is also the host that is resolved, connected to, and sent in the ``Host`` header.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote

import idna

from shared.errors import UrlRefused
from shared.fetch.addresses import Address, unmap

MAX_LENGTH: Final = 8190
"""Maximum characters of a URL as the client wrote it, and maximum bytes of its request target. Both equal the
limit for the request line of requests to this service."""
_MAX_NAME_LENGTH: Final = 253
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?:#.*)?"
)
_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\[\]@]*\]|[^:\[\]@]+)(?::(?P<port>[0-9]{0,5}))?")
_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")
"""Characters that are not allowed in a URL: control characters, which some parsers drop; the backslash, which some
parsers treat as a slash; and lone surrogates, which no encoding can represent."""
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"0x[0-9a-f]*|[0-9]+")
_SAFE: Final = "/%:@!$&'()*+,;=~-._?[]|^{}`"


@dataclass(frozen=True, slots=True)
class Url:
    """A parsed URL.

    ``host`` is a name, or an address as text. ``address`` is the address, or None if the host is a name.
    ``request_target`` is the path and the query in ASCII.
    """

    scheme: str
    host: str
    address: Address | None
    port: int
    request_target: str

    @property
    def authority(self) -> str:
        """The value of the ``Host`` header: the host, and the port unless it is the default port of the scheme."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.request_target}"


def parse(text: str) -> Url:
    """Parse a URL.

    :raises UrlRefused: when the URL is malformed, ambiguous or too long, or its scheme is not http or https
        (``bad_url``).
    """
    if len(text) > MAX_LENGTH:
        raise UrlRefused(f"The URL is longer than {MAX_LENGTH:,} characters.")
    found = _URL.fullmatch(text)
    if found is None or _FORBIDDEN.search(text):
        raise UrlRefused("The URL is malformed; it must consist of http:// or https://, a host and a path.")
    scheme = found["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        raise UrlRefused("The scheme of the URL is not supported; use http or https.")
    if "@" in found["authority"]:
        raise UrlRefused("The URL contains a user name or a password; remove it.")
    authority = _AUTHORITY.fullmatch(found["authority"])
    if authority is None:
        raise UrlRefused("The URL has a malformed host or port.")
    try:
        host = parse_host(authority["host"])
    except ValueError as error:
        raise UrlRefused("The URL has a malformed host.") from error
    request_target = quote((found["path"] or "/") + (found["query"] or ""), safe=_SAFE)
    if len(request_target) > MAX_LENGTH:
        raise UrlRefused(f"The path and query of the URL are longer than {MAX_LENGTH:,} bytes when percent-encoded.")
    port = int(authority["port"] or _DEFAULT_PORTS[scheme])
    if not 0 < port < 65536:
        raise UrlRefused("The URL has an invalid port; use a port from 1 to 65535.")
    return Url(scheme, str(host), None if isinstance(host, str) else host, port, request_target)


def parse_host(text: str) -> str | Address:
    """Parse the host of a URL: a name, or an address in any notation that some program accepts.

    The function follows the host parser of the URL standard, as browsers do, except that it refuses percent signs.

    :raises ValueError: when the text is neither a name nor an address. The errors that ``idna`` raises are ValueErrors,
        too.
    """
    if text.startswith("["):
        if "%" in text:  # ipaddress would accept a zone ID, which is valid on one machine only
            raise ValueError("an IPv6 zone ID is not allowed")
        return unmap(IPv6Address(text[1:-1]))
    if not text.isascii():
        # Before any comparison, map full-width digits, dots of other scripts, and circled letters to the ASCII
        # characters that they resemble.
        text = idna.encode(text, uts46=True, std3_rules=True).decode()
    text = text.lower().removesuffix(".")
    labels = text.split(".")
    if len(text) > _MAX_NAME_LENGTH:
        raise ValueError(f"the name is longer than {_MAX_NAME_LENGTH} characters")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(labels)
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("not a valid host name")
    return text


def parse_name(text: str) -> str:
    """Parse a host name, and return it in the canonical spelling of ``Url.host``.

    :raises ValueError: when the text is an address, or not a valid host name.
    """
    name = parse_host(text)
    if not isinstance(name, str):
        raise ValueError(f"{text!r} is an address, not a host name")  # noqa: TRY004 -- the value is wrong, not the type
    return name


def _ipv4(labels: Sequence[str]) -> IPv4Address:
    """Parse an IPv4 address of one to four numbers, as ``inet_aton`` does.

    The numbers can be octal or hexadecimal. The last number fills all remaining octets.
    """
    if len(labels) > 4 or not all(_NUMBER.fullmatch(label) for label in labels):
        raise ValueError("not a valid IPv4 address")
    *first, last = (_number(label) for label in labels)
    if any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
        raise ValueError("not a valid IPv4 address")
    return IPv4Address(last + sum(number << 8 * (3 - index) for index, number in enumerate(first)))


def _number(label: str) -> int:
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8 if label.startswith("0") else 10)
