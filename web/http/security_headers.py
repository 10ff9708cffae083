"""Add the response headers that restrict how a browser may use a response."""

from typing import Final

from flask import Flask, Response, request

_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
"""What pages may load and do. ``default-src`` covers what is not listed, such as plugins, fonts and frames."""
_STRICT_TRANSPORT_SECURITY: Final = "max-age=31536000"


def install(app: Flask) -> None:
    """Add the security headers to every response."""
    app.after_request(_add_headers)


def _add_headers(response: Response) -> Response:
    headers = response.headers
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers["Referrer-Policy"] = "same-origin"  # the URL of the page or the file can have a signature
    if request.is_secure:
        headers["Strict-Transport-Security"] = _STRICT_TRANSPORT_SECURITY
    if response.status_code == 204 or request.method == "OPTIONS":
        headers.pop("Content-Type", None)  # an empty response has no media type
    if response.mimetype == "text/html":
        headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return response
