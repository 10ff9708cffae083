"""Declare for each route what the principal of a request must be allowed to do.

Each view has one of the decorators of this module, below the decorator of its route. ``web.http.authentication`` enforces
the rules, and ``web.openapi`` describes them. An application that has a route without a rule does not start.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeVar

from flask import Flask
from werkzeug.exceptions import MethodNotAllowed
from werkzeug.routing import MapAdapter, Rule

from shared.accounts.permissions import Scope

View = TypeVar("View", bound=Callable[..., Any])
Rate = Literal["requests", "uploads", "failures"]


@dataclass(frozen=True, slots=True)
class AccessRule:
    """What a route requires: nothing (``is_public``), or a principal.

    The principal must have all ``scopes``, and one of ``any_scopes``, if there are some. An API key must have ``key_scope``, if it is set. With
    ``needs_session``, the principal must be a person who has signed in. With ``accepts_signature``, the signature in the URL
    can take the place of credentials.

    ``counts_as`` says which requests count against the quotas of ``web.http.request_rates``: all of them, as ``requests`` or as
    ``uploads``; only those with missing or invalid credentials (``failures``); or none (None).
    """

    is_public: bool = False
    scopes: tuple[Scope, ...] = ()
    any_scopes: tuple[Scope, ...] = ()
    key_scope: Scope | None = None
    needs_session: bool = False
    accepts_signature: bool = False
    counts_as: Rate | None = "requests"


PUBLIC: Final = AccessRule(is_public=True)
AUTHENTICATED: Final = AccessRule()
_RULES: Final = "access_rules"


def public(view: View) -> View:
    """Declare that a route needs no credentials."""
    return _declare(view, PUBLIC)


def authenticated(view: View) -> View:
    """Declare that a route needs credentials, but no particular scope."""
    return _declare(view, AUTHENTICATED)


def requires(*scopes: Scope, or_signature: bool = False) -> Callable[[View], View]:
    """Declare that a route needs credentials with all ``scopes`` or, with ``or_signature``, a signed URL."""

    def declare(view: View) -> View:
        return _declare(view, AccessRule(scopes=scopes, accepts_signature=or_signature))

    return declare


def requires_any(*scopes: Scope) -> Callable[[View], View]:
    """Declare that a route needs credentials with at least one of ``scopes``. Which of them is enough, the view decides."""

    def declare(view: View) -> View:
        return _declare(view, AccessRule(any_scopes=scopes))

    return declare


def key_requires(scope: Scope) -> Callable[[View], View]:
    """Declare that a route needs the credentials of a person, or an API key with ``scope``."""

    def declare(view: View) -> View:
        return _declare(view, AccessRule(key_scope=scope))

    return declare


def session_required(view: View) -> View:
    """Declare that a route needs the access token of a person who has signed in."""
    return _declare(view, AccessRule(needs_session=True))


def counts_as(rate: Rate | None) -> Callable[[View], View]:
    """Declare against which quotas the requests to a route count, if not as ``requests``.

    This decorator is above the one that declares what the route requires.
    """

    def declare(view: View) -> View:
        return _declare(view, replace(_rule_of_view(view), counts_as=rate))

    return declare


def install(app: Flask, *, public_endpoints: Iterable[str]) -> None:
    """Collect the rules of all routes. Call this function after all blueprints have been registered.

    :param public_endpoints: endpoints that Flask itself defines, such as those of static files, and that need no
        credentials. Their requests count against no quota.
    :raises ValueError: when a route has no rule.
    """
    rules = dict.fromkeys(public_endpoints, replace(PUBLIC, counts_as=None))
    for endpoint, view in app.view_functions.items():
        rule = getattr(view, "access_rule", None)
        if rule is not None:
            rules[endpoint] = rule
        elif endpoint not in rules:
            raise ValueError(f"The route {endpoint} declares no access rule; see web.http.access_rules.")
    app.extensions[_RULES] = rules


def rule_of(app: Flask, endpoint: str) -> AccessRule:
    """Return the rule of the route with this endpoint."""
    rule = app.extensions[_RULES][endpoint]
    assert isinstance(rule, AccessRule)  # noqa: S101 -- ``install`` sets them
    return rule


def scopes_in_use(app: Flask) -> frozenset[Scope]:
    """Return the scopes that routes require. The others have no effect in this version."""
    rules: Iterable[AccessRule] = app.extensions[_RULES].values()
    return frozenset(scope for rule in rules for scope in (*rule.scopes, *rule.any_scopes, rule.key_scope) if scope is not None)


def match_endpoint(adapter: MapAdapter | None, routed: Rule | None, error: Exception | None) -> str | None:
    """Return the endpoint of a request, also if its path has a route, but not for its method. None: there is no route.

    :param routed: the route of the request, if it has one.
    :param error: the error of routing the request, if it has none.
    """
    if routed is not None:
        return str(routed.endpoint)
    if isinstance(error, MethodNotAllowed) and error.valid_methods and adapter is not None:
        endpoint, _ = adapter.match(method=next(iter(error.valid_methods)))
        return str(endpoint)
    return None


def _rule_of_view(view: Callable[..., Any]) -> AccessRule:
    rule = getattr(view, "access_rule", None)
    if not isinstance(rule, AccessRule):
        raise TypeError(f"{view.__name__} declares no access rule below its quota.")
    return rule


def _declare(view: View, rule: AccessRule) -> View:
    view.access_rule = rule  # type: ignore[attr-defined]  # functions accept any attribute
    return view
