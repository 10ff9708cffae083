"""Open mode's doors: until accounts exist, the service answers only to this machine and to nobody's foreign page."""

import ipaddress
from urllib.parse import urlsplit

from flask import Flask, request

from shared import settings, telemetry
from shared.errors import Forbidden, Misdirected, Unauthorized

_SAFE = {"GET", "HEAD", "OPTIONS"}


def install(app: Flask, web: settings.Web) -> None:
    """Check ``Host``, ``Origin`` and ``Authorization`` before anything else looks at a request."""
    public = urlsplit(web.public_url).hostname if web.public_url else None

    def check() -> None:
        if not _is_ours(_host_name(request.host), public):
            telemetry.security.warning("foreign host", extra={"data": {"host": request.host[:200]}})
            raise Misdirected("This service answers for localhost, a loopback address or its PUBLIC_URL only.")
        if request.headers.get("Authorization") is not None:
            raise Unauthorized("Accounts are not part of this version; send no Authorization header.")
        if request.method not in _SAFE:
            _refuse_foreign_pages(public)

    app.before_request(check)


def _refuse_foreign_pages(public: str | None) -> None:
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    foreign = site == "cross-site"
    if origin is not None:
        try:
            name = urlsplit(origin).hostname
        except ValueError:
            name = None
        foreign = foreign or name is None or not _is_ours(name, public)
    if foreign:
        telemetry.security.warning("foreign origin", extra={"data": {"origin": (origin or "")[:200]}})
        raise Forbidden("A page of another site may not do this.", code="foreign_origin")


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
