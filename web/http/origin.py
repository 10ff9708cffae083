"""Refuse requests for other hosts and from pages of other origins.

While access is open, the service accepts requests only for the host names of this machine and for the host in
``PUBLIC_URL``. It always refuses requests with unsafe methods that are sent by pages of other origins, except those in
``CORS_ORIGINS`` with an ``Authorization`` header, which browsers do not add by themselves. This exception does not count for
public routes, such as that to sign in, where the header proves nothing. The host or the origin is a detail of the event in the
security log.
"""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, current_app, g, request

from shared import settings
from shared.errors import Forbidden, Misdirected
from web.http import access_rules

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods of requests that change nothing."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def install(app: Flask, web: settings.Web, *, checks_host: bool) -> None:
    """Check the ``Origin`` header before a request is handled.

    :param checks_host: whether to check the ``Host`` header, too.
    """
    public_host = urlsplit(web.public_url).hostname if web.public_url else None

    def check_request() -> None:
        if checks_host and not all(_is_own_host(host, public_host) for host in _request_hosts()):
            g.refusal_details = {"host": request.host}
            raise Misdirected("Unknown host name; use localhost, a loopback address, or the host in PUBLIC_URL.")
        if request.method not in SAFE_METHODS:
            refuse_foreign_pages(web)

    app.before_request(check_request)


def refuse_foreign_pages(web: settings.Web) -> None:
    """Refuse a request that a browser sends from a page of another origin. A different port is a different origin, too.

    A link is no such request: with a safe method, the page of another origin can send the user to this service.

    :raises Forbidden: when the request comes from another origin (``foreign_origin``).
    """
    if request.method in SAFE_METHODS and _is_link():
        return
    if request.headers.get("Origin") in web.cors_origins and "Authorization" in request.headers and not _is_public():
        return
    site = request.headers.get("Sec-Fetch-Site")
    # Browsers send Sec-Fetch-Site only over https, and to the machine on which they run. If the header is missing, the
    # Referer header shows the origin of the page, for example for an image that a page of another site embeds.
    origin = request.headers.get("Origin") or (request.headers.get("Referer") if site is None else None)
    is_foreign = site not in {None, "same-origin", "none"}
    if origin is not None:
        own_origin = f"{request.scheme}://{request.host}"
        is_foreign = is_foreign or _host_and_port(origin) not in {
            _host_and_port(own_origin),
            _host_and_port(web.public_url),
        } - {None}
    if is_foreign:
        g.refusal_details = {"origin": origin}
        raise Forbidden(
            "Pages of other sites must not send this request; send it from a page of this service.",
            code="foreign_origin",
        )


def _is_public() -> bool:
    """Return whether the current request belongs to a route that needs no credentials."""
    endpoint = request.endpoint
    return endpoint is not None and access_rules.rule_of(current_app, endpoint).is_public


def _is_link() -> bool:
    """Return whether a person has followed a link, and the response is about to replace the page with the link.

    This is not so for an image, a script or a frame in the page, nor if a script of the page opens the address, nor if
    the browser only prefetches the response.
    """
    headers = request.headers
    is_shown = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return is_shown and headers.get("Sec-Fetch-User") == "?1" and "Sec-Purpose" not in headers


def _host_and_port(url: str) -> tuple[str, int] | None:
    """Return the host and the port of a URL, or None if the URL is invalid.

    For every name and every loopback address of this machine, the returned host is ``localhost``.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    if parts.hostname is None or port is None:
        return None
    return ("localhost" if _is_own_host(parts.hostname, None) else parts.hostname.lower()), port


def _request_hosts() -> list[str]:
    """Return the host in the Host header of the current request.

    If the request target is an absolute URL (RFC 9112, 3.2.2), also return the host in this URL.
    """
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
