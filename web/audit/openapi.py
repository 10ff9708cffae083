"""The OpenAPI description of the security log."""

from typing import Any, Final

from pydantic import BaseModel

from shared.accounts.audit_events import EVENT_TYPES
from shared.ids import EVENT_ID_PATTERN
from web.audit.response_schemas import AuditEvent, AuditEventPage
from web.http.openapi_components import TIME, json_content, paging_parameters, parameter, problem_responses

MODELS: Final[tuple[type[BaseModel], ...]] = (AuditEvent, AuditEventPage)


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for the security log."""
    return {"/audit": {"get": _list_events()}}


def _list_events() -> dict[str, Any]:
    return {
        "operationId": "listAuditEvents",
        "summary": "List the events of the security log, newest first",
        "description": "A counted event, such as request.refused, stands for several events of one subject in a window of time, and is listed at the beginning of the window.",
        "parameters": [*(parameter(name, schema) for name, schema in _filters().items()), *paging_parameters({"type": "string", "pattern": f"^{EVENT_ID_PATTERN}$"})],
        "responses": {"200": json_content("A page of events", "AuditEventPage")}
        | problem_responses("missing_scope", "all_stores_required", "invalid", "bad_cursor", "database_unavailable", "query_too_slow"),
    }


def _filters() -> dict[str, dict[str, Any]]:
    text = {"type": "string", "minLength": 1, "maxLength": 200}
    return {
        "type": {"type": "string", "enum": list(EVENT_TYPES)},
        "username": text,
        "key_id": text,
        "address": {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}], "description": "An IPv6 address stands for its /64 network."},
        "target": text,
        "since": TIME | {"description": f"The event happened at this time or later, at least once. {TIME['description']}"},
        "until": TIME | {"description": f"The event happened at this time or earlier, at least once. {TIME['description']}"},
    }
