"""Open mode's doors: until accounts exist, the service answers only to this machine and to nobody's foreign page."""

import ipaddress
from urllib.parse import urlsplit

from flask import Flask, request

from shared import settings, telemetry
from shared.errors import Forbidden, Misdirected, Unauthorized

_SAFE = {"GET", "HEAD", "OPTIONS"}
_PORTS = {"http": 80, "https": 443}


def install(app: Flask, web: settings.Web) -> None:
    """Check ``Host``, ``Origin`` and ``Authorization`` before anything else looks at a request."""
    public = urlsplit(web.public_url).hostname if web.public_url else None

    def check() -> None:
        if not all(_is_ours(name, public) for name in _named_hosts()):
            telemetry.security.warning("foreign host", extra={"data": {"host": request.host[:200]}})
            raise Misdirected("This service answers for localhost, a loopback address or its PUBLIC_URL only.")
        if request.headers.get("Authorization") is not None:
            raise Unauthorized("Accounts are not part of this version; send no Authorization header.")
        if request.method not in _SAFE:
            refuse_foreign_pages(web.public_url)

    app.before_request(check)


def refuse_foreign_pages(public_url: str) -> None:
    """Let a browser set things going from our own pages only: another port of this machine is another site too.

    :raises Forbidden: ``foreign_origin``.
    """
    site = request.headers.get("Sec-Fetch-Site")
    # Browsers say the site to this machine and over https only; elsewhere a picture in a foreign page says where it stands.
    origin = request.headers.get("Origin") or (request.headers.get("Referer") if site is None else None)
    foreign = site not in {None, "same-origin", "none"}
    if origin is not None:
        here = f"{request.scheme}://{request.host}"
        foreign = foreign or _place(origin) not in {_place(here), _place(public_url)} - {None}
    if foreign:
        telemetry.security.warning("foreign origin", extra={"data": {"origin": (origin or "")[:200]}})
        raise Forbidden("A page of another site may not do this.", code="foreign_origin")


def _place(url: str) -> tuple[str, int] | None:
    """Give host and port of an address, every name of this machine as one; None for what is none."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    if parts.hostname is None or port is None:
        return None
    return ("localhost" if _is_ours(parts.hostname, None) else parts.hostname.lower()), port


def _named_hosts() -> list[str]:
    """Give the hosts that a request names: in its Host, and in an absolute target (RFC 9112, 3.2.2)."""
    target = request.environ.get("RAW_URI", "/")
    absolute = [] if target.startswith("/") else [target.partition("://")[2].partition("/")[0]]
    return [_host_name(host) for host in (request.environ.get("HTTP_HOST", ""), *absolute)]


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_ours(name: str, public: str | None) -> bool:
    name = name.rstrip(".").lower()
    if name == "localhost" or (public is not None and name == public):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
