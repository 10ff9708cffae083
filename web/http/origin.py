"""Open mode: until accounts exist, the service answers to names of this machine only, and refuses requests from pages of other sites."""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, request

from shared import settings, telemetry
from shared.errors import Forbidden, Misdirected, Unauthorized

_SAFE_METHODS: Final = {"GET", "HEAD", "OPTIONS"}
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def install(app: Flask, web: settings.Web) -> None:
    """Check ``Host``, ``Origin`` and ``Authorization`` before anything else handles a request."""
    public_host = urlsplit(web.public_url).hostname if web.public_url else None

    def check_request() -> None:
        if not all(_is_own_host(host, public_host) for host in _request_hosts()):
            telemetry.security.warning("foreign host", extra={"data": {"host": request.host[:200]}})
            raise Misdirected("This service answers to localhost, loopback addresses and its PUBLIC_URL only; use one of these.")
        if request.headers.get("Authorization") is not None:
            raise Unauthorized("Accounts are not part of this version; send no Authorization header.")
        if request.method not in _SAFE_METHODS:
            refuse_foreign_pages(web.public_url)

    app.before_request(check_request)


def refuse_foreign_pages(public_url: str) -> None:
    """Refuse a request that a browser sends from a page of another origin; another port of this machine is another origin too.

    :raises Forbidden: ``foreign_origin``.
    """
    site = request.headers.get("Sec-Fetch-Site")
    # Browsers send Sec-Fetch-Site to this machine and over https only. Elsewhere the Referer of an image in a foreign page shows its origin.
    origin = request.headers.get("Origin") or (request.headers.get("Referer") if site is None else None)
    is_foreign = site not in {None, "same-origin", "none"}
    if origin is not None:
        own_origin = f"{request.scheme}://{request.host}"
        is_foreign = is_foreign or _host_and_port(origin) not in {_host_and_port(own_origin), _host_and_port(public_url)} - {None}
    if is_foreign:
        telemetry.security.warning("foreign origin", extra={"data": {"origin": (origin or "")[:200]}})
        raise Forbidden("Pages of other sites may not send this request; send it from a page of this service.", code="foreign_origin")


def _host_and_port(url: str) -> tuple[str, int] | None:
    """Return host and port of a URL, ``localhost`` for every name of this machine; None for an invalid URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    if parts.hostname is None or port is None:
        return None
    return ("localhost" if _is_own_host(parts.hostname, None) else parts.hostname.lower()), port


def _request_hosts() -> list[str]:
    """Return the hosts that a request names: in its Host header, and in an absolute target (RFC 9112, 3.2.2)."""
    target = request.environ.get("RAW_URI", "/")
    absolute = [] if target.startswith("/") else [target.partition("://")[2].partition("/")[0]]
    return [_host_name(host) for host in (request.environ.get("HTTP_HOST", ""), *absolute)]


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_own_host(name: str, public_host: str | None) -> bool:
    name = name.rstrip(".").lower()
    if name == "localhost" or (public_host is not None and name == public_host):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
