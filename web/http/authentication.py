"""Find out who makes a request, and refuse it if they may not make it.

The credentials of a request are its ``Authorization`` header. Without this header, they are a valid signature in its URL, and
without such a signature the session cookie. Browsers send the cookie by themselves, so with it, an unsafe method needs a CSRF
token, too. The credentials are checked before the route is known, so a request without valid credentials learns nothing about
the paths that exist. Requests are counted (``web.http.request_rates``) after this, and before what their principals may do is
checked.

The rules of the routes are in ``web.http.access_rules``. In which stores the principal may act is a condition of the queries,
so each view passes ``current_principal().stores`` to the domain.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from flask import Flask, g, request
from flask.globals import request_ctx

from shared.accounts.csrf_tokens import CsrfTokens
from shared.accounts.permissions import OPEN, SIGNED, Principal
from shared.accounts.signed_urls import UrlSigner
from shared.errors import Forbidden, Unauthorized
from web.http import access_rules, challenges, session_cookie, signed_urls
from web.http.access_rules import AccessRule
from web.http.origin import SAFE_METHODS

_SCHEME: Final = "bearer"
_MAX_CREDENTIALS: Final = 4096
CSRF_HEADER: Final = "X-CSRF-Token"

Authenticate = Callable[[str], Principal]
"""A function that returns the principal that credentials belong to.

:raises Unauthorized: when the credentials are invalid.
:raises StoreAway: when the credentials cannot be checked.
"""


@dataclass(frozen=True, slots=True)
class CredentialChecks:
    """What checks the credentials of requests.

    ``authenticate`` checks access tokens and API keys, ``authenticate_cookie`` the token in the session cookie. ``url_signer``
    is None if no signature is accepted.
    """

    authenticate: Authenticate
    authenticate_cookie: Authenticate
    url_signer: UrlSigner | None


def install(app: Flask, checks: CredentialChecks, on_authenticated: Callable[[Principal], None], *, is_on: bool) -> None:
    """Check the credentials of a request before it is handled. ``install_enforcement`` refuses what its principal may not do.

    :param on_authenticated: called with the principal of each request with valid credentials.
    :param is_on: whether requests need credentials, except to public routes, where credentials are then ignored. If not,
        requests without an ``Authorization`` header may do anything, and those with it are checked everywhere.
    """

    def check_credentials() -> None:
        header = request.headers.get("Authorization")
        endpoint = access_rules.match_endpoint(request_ctx.url_adapter, request.url_rule, request.routing_exception)
        rule = access_rules.AUTHENTICATED if endpoint is None else access_rules.rule_of(app, endpoint)
        g.access_rule = rule
        if is_on and rule.is_public:
            return  # so that whoever sends an expired token with every request can still refresh it
        g.is_protected = is_on
        if header is not None:
            credentials = _bearer_credentials(header)
            challenges.note_bearer_token()
            identify(partial(checks.authenticate, credentials), rule)
        elif not is_on:
            g.principal = OPEN
        elif rule.accepts_signature and checks.url_signer is not None and signed_urls.is_signed(checks.url_signer):
            g.principal = SIGNED
        elif session_cookie.is_sent():
            identify(partial(_authenticate_cookie, checks), rule)
        elif rule.accepts_signature and signed_urls.has_signature():
            raise Unauthorized("The signature in the URL is invalid or has expired; request the image again.")
        else:
            raise Unauthorized("This request needs credentials; send an access token or an API key as `Authorization: Bearer ...`.")

    def identify(check: Callable[[], Principal], rule: AccessRule) -> None:
        g.principal = principal = check()
        g.recheck = partial(_recheck, check, rule)
        on_authenticated(principal)

    app.before_request(check_credentials)


def install_enforcement(app: Flask, csrf_tokens: CsrfTokens) -> None:
    """Refuse a request that its principal may not make, before it is handled.

    Call this function after ``install``, and after the functions that count requests, because refused requests count, too.
    """

    def check_rights() -> None:
        if cookie_principal() is not None:
            _check_csrf_token(csrf_tokens)
        if "principal" in g and request.method != "OPTIONS":
            _enforce(g.access_rule, current_principal())

    app.before_request(check_rights)


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
    assert isinstance(principal, Principal)  # noqa: S101 -- check_credentials sets it
    return principal


def is_protected() -> bool:
    """Return whether the current request needs credentials."""
    return bool(g.get("is_protected"))


def is_cookie_checked() -> bool:
    """Return whether the session cookie of the current request has been checked as its credentials."""
    return "cookie_principal" in g


def cookie_principal() -> Principal | None:
    """Return the principal of the current request if its credentials are a valid session cookie."""
    found: Principal | None = g.get("cookie_principal")
    return found


def _authenticate_cookie(checks: CredentialChecks) -> Principal:
    g.cookie_principal = None
    try:
        g.cookie_principal = principal = checks.authenticate_cookie(session_cookie.read())
    except Unauthorized:
        session_cookie.refuse()
        raise
    return principal


def _check_csrf_token(csrf_tokens: CsrfTokens) -> None:
    """Refuse a request with the session cookie and an unsafe method, unless a page of this service sends it.

    :raises Forbidden: when its CSRF token is missing or belongs to another session (``bad_csrf_token``).
    """
    if request.method in SAFE_METHODS:
        return
    session_id = current_principal().session_id
    if session_id is None or not csrf_tokens.is_valid(session_id, request.headers.get(CSRF_HEADER, "")):
        raise Forbidden(
            f"A request with the session cookie needs the CSRF token of a page in the header {CSRF_HEADER}; reload the page and try again.",
            code="bad_csrf_token",
        )


def _enforce(rule: AccessRule, principal: Principal) -> None:
    """Refuse the current request if its principal may not make it.

    :raises Forbidden: when a scope is missing (``missing_scope``; ``extra`` names it), or the principal has no session
        (``session_required``).
    """
    if rule.needs_session and principal.session_id is None:
        raise Forbidden("This needs a person who has signed in.", code="session_required")
    of_key = () if principal.key is None or rule.key_scope is None else (rule.key_scope,)
    of_any = () if any(map(principal.may, rule.any_scopes)) else rule.any_scopes[:1]
    scope = next((scope for scope in (*rule.scopes, *of_key, *of_any) if not principal.may(scope)), None)
    if scope is not None:
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


def _recheck(check: Callable[[], Principal], rule: AccessRule) -> None:
    g.principal = check()
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
