"""Accept the headers of proxies from proxies alone: the address and the scheme of the client, and ``X-Upload-Check``.

These headers are used only if the request comes from a proxy in ``WEB_TRUSTED_PROXIES``.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final

from werkzeug.middleware.proxy_fix import ProxyFix

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_OF_PROXIES: Final = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_", "HTTP_X_UPLOAD_CHECK")
"""The beginnings of the names of headers that only trusted proxies may send."""


class TrustedProxies:
    """WSGI middleware that applies forwarded headers from trusted proxies, and removes the headers of proxies from other peers.

    Only the last element of ``X-Forwarded-For`` and ``X-Forwarded-Proto`` is used, because the trusted proxy has added
    this element. ``Host`` is used as the proxy sends it. ``X-Forwarded-Host`` is never read.
    """

    def __init__(self, app: "WSGIApplication", trusted: tuple[IPv4Network | IPv6Network, ...]) -> None:
        self._app, self._trusted = app, trusted
        self._proxy_fix = ProxyFix(app, x_for=1, x_proto=1, x_host=0)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Apply or remove the headers of proxies, then call the wrapped application."""
        if self._is_trusted(environ.get("REMOTE_ADDR", "")):
            return self._proxy_fix(environ, start_response)
        for name in [name for name in environ if name.startswith(_OF_PROXIES)]:
            del environ[name]
        return self._app(environ, start_response)

    def _is_trusted(self, peer: str) -> bool:
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        # On a dual-stack socket, the address of an IPv4 peer is an IPv4-mapped IPv6 address.
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self._trusted)
