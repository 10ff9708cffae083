"""Find out who makes a request, and refuse it if they may not make it.

The credentials are checked before the route is known, so a request without valid credentials learns nothing about the
paths that exist. The rules of the routes are in ``web.http.access_rules``. In which stores the principal may act is a
condition of the queries, so each view passes ``current_principal().stores`` to the domain.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from flask import Flask, g, request
from flask.globals import request_ctx

from shared.accounts.permissions import OPEN, Principal
from shared.errors import Forbidden, Unauthorized
from web.http import access_rules
from web.http.access_rules import AccessRule

_SCHEME: Final = "bearer"
_MAX_CREDENTIALS: Final = 4096

Authenticate = Callable[[str], Principal]
"""A function that returns the principal that an access token or an API key belongs to.

:raises Unauthorized: when the credentials are invalid.
:raises StoreAway: when the credentials cannot be checked.
"""


def install(app: Flask, authenticate: Authenticate, on_authenticated: Callable[[Principal], None], *, is_on: bool) -> None:
    """Check the ``Authorization`` header and the access rule of the route before a request is handled.

    :param on_authenticated: called with the principal of each request with valid credentials.
    :param is_on: whether requests need credentials, except to public routes, where an ``Authorization`` header is then
        ignored. If not, requests without this header may do anything, and those with it are checked everywhere.
    """

    def check_request() -> None:
        header = request.headers.get("Authorization")
        endpoint = access_rules.match_endpoint(request_ctx.url_adapter, request.url_rule, request.routing_exception)
        rule = access_rules.AUTHENTICATED if endpoint is None else access_rules.rule_of(app, endpoint)
        if is_on and rule.is_public:
            return  # so that whoever sends an expired token with every request can still refresh it
        if header is not None:
            credentials = _bearer_credentials(header)
            g.principal = principal = authenticate(credentials)
            g.recheck = partial(_recheck, authenticate, credentials, rule)
            on_authenticated(principal)
        elif not is_on:
            g.principal = OPEN
        else:
            raise Unauthorized("This request needs credentials; send an access token or an API key as `Authorization: Bearer ...`.")
        if request.method != "OPTIONS":
            _enforce(rule, current_principal())

    app.before_request(check_request)


def recheck() -> Principal:
    """Check the credentials of the current request once more, and return the principal with its present rights.

    A request that has waited for long calls this before it reads or writes, because rights that have been taken away must
    not count any more after five seconds.

    :raises Unauthorized: when the credentials are no longer valid.
    :raises Forbidden: when the principal may no longer make the request.
    :raises StoreAway: when the credentials cannot be checked.
    """
    if "recheck" in g:
        g.recheck()
    return current_principal()


def current_principal() -> Principal:
    """Return who makes the current request.

    :raises RuntimeError: in a public route whose request has no credentials.
    """
    principal = g.get("principal")
    if principal is None:
        raise RuntimeError("This route is public, so its request need not have a principal.")
    assert isinstance(principal, Principal)  # noqa: S101 -- check_request sets it
    return principal


def _enforce(rule: AccessRule, principal: Principal) -> None:
    """Refuse the current request if its principal may not make it.

    :raises Forbidden: when a scope is missing (``missing_scope``; ``extra`` names it), or the principal has no session
        (``session_required``).
    """
    if rule.needs_session and principal.session_id is None:
        raise Forbidden("This needs the access token of a person; sign in with POST /login.", code="session_required")
    scope = rule.scope if principal.key is None else rule.scope or rule.key_scope
    if scope is not None and not principal.may(scope):
        raise Forbidden(
            f"These credentials lack the scope {scope}; ask an administrator for it. GET /me lists the scopes that they have.",
            code="missing_scope",
            extra={"scope": scope},
        )


def require_all_stores() -> None:
    """Refuse the current request if its principal is limited to some stores.

    :raises Forbidden: when it is (``all_stores_required``).
    """
    if current_principal().stores is not None:
        raise Forbidden(
            "This request concerns all stores, but these credentials are limited to some; use those of an administrator of all stores.",
            code="all_stores_required",
        )


def _recheck(authenticate: Authenticate, credentials: str, rule: AccessRule) -> None:
    g.principal = authenticate(credentials)
    _enforce(rule, g.principal)


def _bearer_credentials(header: str) -> str:
    """Return the credentials in an ``Authorization`` header.

    :raises Unauthorized: when the header does not have the form ``Bearer <credentials>``.
    """
    scheme, _, credentials = header.partition(" ")
    credentials = credentials.strip(" ")
    if scheme.lower() != _SCHEME or not credentials or len(credentials) > _MAX_CREDENTIALS or not credentials.isascii():
        raise Unauthorized("The Authorization header is invalid; send an access token or an API key as `Authorization: Bearer ...`.")
    return credentials
