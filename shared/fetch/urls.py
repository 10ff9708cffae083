"""A URL is taken apart once, strictly. What two parsers could read in two ways is refused instead of guessed at.

Hosts come out in one spelling: an address as an address, whichever way it was written, a name in lower-case ASCII without its last dot.
So what is compared with lists, resolved, dialled and said in ``Host`` is the same thing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote

import idna

from shared.errors import UrlRefused
from shared.fetch.addresses import Address, plain

MAX_LENGTH: Final = 8190
"""Characters of a URL as given, and bytes of what is asked for; as many as this service itself reads."""
_MAX_NAME: Final = 253
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PARTS: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?:#.*)?")
_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\[\]@]*\]|[^:\[\]@]+)(?::(?P<port>[0-9]{0,5}))?")
_NEVER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")
"""Controls, which some parsers drop; the backslash, which some read as a slash; half characters, which no encoding has."""
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"0x[0-9a-f]*|[0-9]+")
_SAFE: Final = "/%:@!$&'()*+,;=~-._?[]|^{}`"


@dataclass(frozen=True, slots=True)
class Url:
    """``host`` is a name, or an address as text; ``address`` is the latter as such; ``target`` is path and query, in ASCII."""

    scheme: str
    host: str
    address: Address | None
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Give what ``Host`` says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Give it whole, without a fragment."""
        return f"{self.scheme}://{self.authority}{self.target}"


def parse(text: str) -> Url:
    """Take a URL apart.

    :raises UrlRefused: ``bad_url``.
    """
    if len(text) > MAX_LENGTH:
        raise UrlRefused(f"The URL is longer than {MAX_LENGTH:,} characters.")
    found = _PARTS.fullmatch(text)
    if found is None or _NEVER.search(text):
        raise UrlRefused("This is not a URL that can be fetched: http:// or https://, a host and a path.")
    scheme = found["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        raise UrlRefused("Only http and https URLs are fetched.")
    if "@" in found["authority"]:
        raise UrlRefused("A URL with a user name or a password in it is not fetched.")
    authority = _AUTHORITY.fullmatch(found["authority"])
    if authority is None:
        raise UrlRefused("The host or the port of the URL cannot be read.")
    try:
        where = host(authority["host"])
    except ValueError as error:
        raise UrlRefused("The host of the URL cannot be read.") from error
    target = quote((found["path"] or "/") + (found["query"] or ""), safe=_SAFE)
    if len(target) > MAX_LENGTH:
        raise UrlRefused(f"The URL is longer than {MAX_LENGTH:,} bytes.")
    port = int(authority["port"] or _DEFAULT_PORTS[scheme])
    if not 0 < port < 65536:
        raise UrlRefused("The port of the URL is none.")
    return Url(scheme, str(where), None if isinstance(where, str) else where, port, target)


def host(text: str) -> str | Address:
    """Read the host of a URL: an address in any spelling that some program takes for one, or a name.

    As browsers do it (the URL standard's host parser), but for percent signs, which are refused.

    :raises ValueError: it is neither. (``idna`` says its errors so, too.)
    """
    if text.startswith("["):
        if "%" in text:  # ipaddress would read a zone id, which means something on this machine only
            raise ValueError("a zone id")
        return plain(IPv6Address(text[1:-1]))
    if not text.isascii():
        # Full-width digits, dots of other scripts and letters in circles become what they look like, before anything is compared.
        text = idna.encode(text, uts46=True, std3_rules=True).decode()
    text = text.lower().removesuffix(".")
    labels = text.split(".")
    if len(text) > _MAX_NAME:
        raise ValueError("too long")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(labels)
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("no name")
    return text


def name(text: str) -> str:
    """Read a name, in the spelling that hosts of URLs come in.

    :raises ValueError: it is none; an address is none either.
    """
    read = host(text)
    if not isinstance(read, str):
        raise ValueError(f"{text!r} is an address")  # noqa: TRY004 -- its type is right, its value is not
    return read


def _ipv4(labels: Sequence[str]) -> IPv4Address:
    """Read one to four numbers as ``inet_aton`` does: octal and hexadecimal too, and the last one fills up what is left."""
    if len(labels) > 4 or not all(_NUMBER.fullmatch(label) for label in labels):
        raise ValueError("not an address")
    *first, last = (_number(label) for label in labels)
    if any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
        raise ValueError("not an address")
    return IPv4Address(last + sum(number << 8 * (3 - place) for place, number in enumerate(first)))


def _number(label: str) -> int:
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8 if label.startswith("0") else 10)
