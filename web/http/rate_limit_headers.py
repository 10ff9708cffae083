"""Tell the client of each limited request how much of which quota it has used.

The headers are those of draft-ietf-httpapi-ratelimit-headers-11: ``RateLimit-Policy`` with the quota (``q``) and the window
in seconds (``w``) of each policy, and ``RateLimit`` with the remaining requests (``r``) and the seconds until they are
replaced (``t``). Both are lists in the syntax of structured fields (RFC 9651).
"""

from collections.abc import Sequence
from typing import Final

from flask import Flask, Response, g

from web.http import problems
from web.http.rate_limits import RateExceeded, Usage

POLICY: Final = "RateLimit-Policy"
LIMIT: Final = "RateLimit"


def install(app: Flask) -> None:
    """Add the headers to the response of each request for which ``show`` was called or a quota was exceeded."""
    app.register_error_handler(RateExceeded, refuse)
    app.after_request(_add_headers)


def show(usage: Usage) -> None:
    """Show a usage in the headers of the response to the current request."""
    if "rate_usages" not in g:
        g.rate_usages = []
    g.rate_usages.append(usage)


def refuse(error: RateExceeded) -> Response:
    """Return the response for a request that would exceed a quota."""
    show(error.usage)
    return problems.problem(error)


def has_usage() -> bool:
    """Return whether the current request was counted against a quota."""
    return "rate_usages" in g


def is_refused() -> bool:
    """Return whether the current request is refused because of a quota."""
    return any(not usage.is_admitted for usage in g.get("rate_usages", ()))


def policy_field(usages: Sequence[Usage]) -> str:
    """Return the value of ``RateLimit-Policy``."""
    return ", ".join(f'"{usage.policy.name}";q={usage.policy.quota};w={usage.policy.window_s}' for usage in usages)


def limit_field(usages: Sequence[Usage]) -> str:
    """Return the value of ``RateLimit``."""
    return ", ".join(f'"{usage.policy.name}";r={usage.remaining};t={usage.reset_s}' for usage in usages)


def _add_headers(response: Response) -> Response:
    usages = g.get("rate_usages")
    if usages:
        response.headers[POLICY] = policy_field(usages)
        response.headers[LIMIT] = limit_field(usages)
    return response
