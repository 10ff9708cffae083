"""List the images that have failed, and process them again."""

from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, Response

from shared.accounts.audit_events import Detail
from shared.allowed_stores import intersect_stores
from shared.catalog import bulk_reprocessing, dead_letter_retries
from shared.catalog.bulk_reprocessing import BulkReprocessing
from shared.errors import FieldError, Invalid
from shared.ids import is_image_id
from shared.ledger import dead_letters
from shared.ledger.filters import Filters
from shared.ledger.reprocessing import Options
from shared.queues import IMAGES
from web import image_filters, job_responses, request_bodies, security_events
from web.admin import serializers
from web.admin.schemas import DeadLetterRetry
from web.http import access_rules, cursor_pages, query, responses
from web.http.authentication import current_principal
from web.services import current_services

blueprint = Blueprint("admin_dead_letters", __name__)
FILTERS: Final = {"code": query.text, "store_name": query.text}
"""The filters of the list."""
_MAX_NAMED: Final = 20
"""The number of batches that an event of the security log names."""


@blueprint.get("/admin/dead-letters")
@access_rules.requires("admin")
def list_dead_letters() -> Response:
    """List failed images of the principal's stores, the newest first, and count them by error code."""
    values = query.read(FILTERS | cursor_pages.PARAMETERS)
    paging = cursor_pages.read_paging(values, is_key=is_image_id)
    services = current_services()
    named = frozenset({values["store_name"]}) if "store_name" in values else None
    stores = intersect_stores(current_principal().stores, named)
    deadline_s = services.settings.mongo.query_deadline_s
    found = dead_letters.list_page(services.db, stores, paging.after, paging.per_page, code=values.get("code"), deadline_s=deadline_s)
    codes = dead_letters.failures_by_code(services.db, stores, deadline_s=deadline_s)
    return responses.json_response({"dead_letters": list(map(serializers.dead_letter, found.images)), "next_cursor": found.after, "codes": codes})


@blueprint.post("/admin/dead-letters/retry")
@access_rules.requires("admin")
def retry_dead_letters() -> Response:
    """Process failed images again: some at once, by their ids, or many in a job, by filters."""
    query.read({})
    body = request_bodies.read(DeadLetterRetry)
    by_filters = "filters" in body.model_fields_set
    if not body.ids and not by_filters:
        detail = "The request names no images; send `ids` or `filters`."
        raise Invalid(detail, errors=[FieldError("", "missing", detail)])
    if by_filters and "ids" in body.model_fields_set:
        detail = "The request has ids and filters; send only one of them."
        raise Invalid(detail, errors=[FieldError("/filters", "bad_value", detail)])
    return _retry_many(body.filters) if by_filters else _retry_some(body.ids)


def _retry_some(ids: list[str]) -> Response:
    services, principal = current_services(), current_principal()
    deadline_s = services.settings.mongo.commit_deadline_s
    queued = dead_letter_retries.retry(services.db, ids, principal.by, principal.stores, deadline_s=deadline_s)
    if queued:
        services.submit(services.wakeups[IMAGES].publish)
        security_events.record("images.reprocessed", details=_describe(queued))
    return responses.json_response({"queued": sum(queued.values())}, 202)


def _describe(queued: Mapping[str, int]) -> dict[str, Detail]:
    batches = sorted(queued)
    return {
        "only": dead_letter_retries.FAILED,
        "images": sum(queued.values()),
        "batches": batches[:_MAX_NAMED],
        "more_batches": max(0, len(batches) - _MAX_NAMED),
    }


def _retry_many(members: dict[str, Any]) -> Response:
    filters, code = _read_filters(members)
    services, principal = current_services(), current_principal()
    owner = job_responses.current_owner()
    wanted = BulkReprocessing(filters, dead_letter_retries.FAILED, Options(by=principal.by), error_code=code, scope="admin")
    job_id = bulk_reprocessing.request(services.db, wanted, owner, deadline_s=services.settings.mongo.commit_deadline_s)
    details = {"only": dead_letter_retries.FAILED, "filters": image_filters.describe(members)}
    security_events.record("images.reprocessed", target=f"job:{job_id}", details=details)
    return job_responses.started(job_id)


def _read_filters(members: dict[str, Any]) -> tuple[Filters, str | None]:
    """Return the filters for images, and the code of the error.

    :raises Invalid: when a filter is unknown or invalid, or is ``status`` (``not_supported``).
    """
    if "status" in members:
        detail = "Only failed images are retried; omit the filter `status`."
        raise Invalid(detail, code="not_supported", errors=[FieldError("/filters/status", "not_supported", detail)])
    code = _read_code(members["code"]) if "code" in members else None
    others = {name: member for name, member in members.items() if name != "code"}
    return image_filters.read_object(current_services().db, others) if others else Filters(), code


def _read_code(member: Any) -> str:
    if not isinstance(member, str):
        raise _bad_code("wrong_type", "The value is not a text; send the code of an error.")
    if not (trimmed := query.trim(member)):
        raise _bad_code("empty", "The text is empty; send the code of an error, or omit the filter.")
    try:
        return query.text(trimmed)
    except ValueError as error:
        raise _bad_code("bad_value", str(error)) from None


def _bad_code(code: str, detail: str) -> Invalid:
    return Invalid("The request has invalid filters; see the `errors` field.", errors=[FieldError("/filters/code", code, detail)])
