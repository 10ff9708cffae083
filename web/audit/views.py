"""List the events of the security log."""

from operator import itemgetter
from typing import Any, Final

from flask import Blueprint, Response

from shared.accounts.audit_events import is_event_id
from shared.accounts.audit_log import EventFilters
from shared.storage import schema
from shared.storage.mongo import Document
from web.audit.filters import FILTERS
from web.http import access_rules, authentication, cursor_pages, query
from web.services import current_services

blueprint = Blueprint("audit", __name__)
_SHOWN: Final = tuple(schema.public_fields(schema.AuditEvent))


@blueprint.get("/audit")
@access_rules.requires("admin")
def list_events() -> Response:
    """List the events that meet all filters, newest first."""
    authentication.require_all_stores()
    values = query.read(FILTERS | cursor_pages.PARAMETERS)
    paging = cursor_pages.read_paging(values, is_key=is_event_id)
    services = current_services()
    events = services.audit_log.find(
        EventFilters(**{name: values[name] for name in FILTERS if name in values}),
        after=paging.after,
        limit=paging.limit,
        deadline_s=services.settings.mongo.query_deadline_s,
    )
    return cursor_pages.page("events", events, paging, key_of=itemgetter("_id"), show=_show)


def _show(event: Document) -> dict[str, Any]:
    found: Document = {"last_address": event.get("address"), "details": {}, **event, "id": event["_id"]}
    return {name: found.get(name) for name in _SHOWN}
