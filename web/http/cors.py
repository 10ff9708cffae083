"""Cross-origin resource sharing: which pages of other origins may read the responses of this service.

By default, none may. The pages of the origins in ``CORS_ORIGINS`` may, if their requests carry their credentials in the
``Authorization`` header. No response permits requests with cookies.
"""

from typing import Final

from flask import Flask, Response, request

_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"
_REQUEST_HEADERS: Final = (
    "Authorization, Content-Type, Content-Encoding, Content-Digest, Idempotency-Key, Prefer, If-Match, If-None-Match, "
    "If-Modified-Since, If-Unmodified-Since, Range, If-Range, X-Request-ID"
)
_RESPONSE_HEADERS: Final = (
    "Location, ETag, Link, Retry-After, RateLimit, RateLimit-Policy, X-Request-ID, WWW-Authenticate, Accept-Ranges, "
    "Content-Range, Content-Disposition, Preference-Applied"
)
_MAX_AGE_S: Final = 600


def install(app: Flask, origins: tuple[str, ...]) -> None:
    """Answer preflight requests, and add the headers of this protocol. Without ``origins``, do nothing.

    Preflight requests carry no credentials, so they are answered before these are checked, in the same way for all paths.
    """
    if not origins:
        return

    def answer_preflight() -> Response | None:
        is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not is_preflight or request.headers.get("Origin") not in origins:
            return None
        headers = {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _REQUEST_HEADERS,
            "Access-Control-Max-Age": str(_MAX_AGE_S),
        }
        return Response(status=204, headers=headers)

    def add_headers(response: Response) -> Response:
        response.vary.add("Origin")  # also without this header, because a cache must keep the responses apart
        origin = request.headers.get("Origin")
        if origin in origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _RESPONSE_HEADERS
        return response

    app.before_request(answer_preflight)
    app.after_request(add_headers)
