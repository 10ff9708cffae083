"""Record events of the current request in the security log, and count refused requests there."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from flask import Flask, Response, g, request

from shared.accounts.audit_events import Detail, Event, EventType
from shared.accounts.permissions import Principal
from web.http import rate_limit_headers
from web.services import current_services

_REFUSED: Final = frozenset({401, 403, 421})


def install(app: Flask) -> None:
    """Count each refused request, unless its view records an event itself, such as a failed sign-in."""
    app.after_request(_count_refusal)


def record(
    event_type: EventType,
    *,
    target: str | None = None,
    details: Mapping[str, Detail] | None = None,
    actor: str | None = None,
    username: str | None = None,
) -> None:
    """Record an event that the current request has caused. Call this before the response is sent.

    If MongoDB does not respond, the event is only logged, and the request succeeds nevertheless. Events of the types in
    ``shared.accounts.audit_events.WINDOWS`` are counted.

    :param target: what was changed, as ``<kind>:<id>``.
    :param details: further members, such as old and new values. They must contain no secrets.
    :param actor: who has acted, for a route without a principal, such as a sign-in: ``user:<id>``, or None if nobody has
        signed in. With ``actor`` or ``username``, the principal of the request is not used.
    :param username: the name of an existing user, never a text that was typed in and belongs to no user: people type
        passwords into the wrong field.
    """
    g.has_security_event = True
    principal: Principal | None = g.get("principal")
    event = _event(event_type, target, details)
    if actor is not None or username is not None or principal is None:
        event = replace(event, actor=actor, account=actor, username=username)
    else:
        event = _with_principal(event, principal)
    current_services().audit_log.record(event)


def record_key_use(principal: Principal) -> None:
    """Record that an API key is used, at most once a minute for each key.

    MongoDB is written in another thread, because the request needs no result.
    """
    services = current_services()
    if principal.key is not None and services.key_usage.is_due(principal.key.id):
        services.submit(services.key_usage.record, principal.key.id)
        services.audit_log.count(_with_principal(_event("api_key.used"), principal))


def _event(event_type: EventType, target: str | None = None, details: Mapping[str, Detail] | None = None) -> Event:
    return Event(event_type, address=request.remote_addr, request_id=g.request_id, target=target, details=details or {})


def _with_principal(event: Event, principal: Principal) -> Event:
    key_id = None if principal.key is None else principal.key.id
    return replace(event, actor=principal.actor, account=principal.account, username=principal.username, key_id=key_id)


def _is_refusal(response: Response) -> bool:
    return response.status_code in _REFUSED or rate_limit_headers.is_refused()


def _count_refusal(response: Response) -> Response:
    if response.status_code >= 400 and _is_refusal(response) and not g.get("has_security_event"):
        route = request.url_rule.rule if request.url_rule is not None else None  # the path can contain a secret
        details = {"code": g.get("problem_code"), "status": response.status_code, "method": request.method, "route": route}
        record("request.refused", details=details | g.get("refusal_details", {}))
    return response
