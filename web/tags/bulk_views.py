"""Tag many images."""

from typing import Final

from flask import Blueprint, Response

from shared.catalog import bulk_tags
from shared.catalog.bulk_tags import MAX_IDS, BulkRequest, Tagged
from shared.catalog.tag_rules import key_of
from shared.errors import FieldError, Invalid
from shared.jobs.error_codes import omission
from web import image_filters, job_responses, request_bodies
from web.http import access_rules, query, responses
from web.services import current_services
from web.tags.bulk_schemas import BulkTagging
from web.tags.schemas import MAX_NAMES

blueprint = Blueprint("bulk_tags", __name__)
MAX_BYTES: Final = 1024 * 1024
"""Maximum size of the body. The maximum number of ids fits."""
_MAX_VALUES: Final = MAX_IDS + 1000


@blueprint.post("/images/tags")
@access_rules.requires("tags:write")
def tag_images() -> Response:
    """Add and remove tags of the images that ids or filters name. For many images, a job does it."""
    query.read({})
    wanted = _read_request(request_bodies.read(BulkTagging, max_bytes=MAX_BYTES, max_values=_MAX_VALUES))
    services = current_services()
    owner = job_responses.current_owner()
    result = bulk_tags.tag_images(services.db, wanted, owner, deadline_s=services.settings.mongo.commit_deadline_s)
    if isinstance(result, Tagged):
        errors = [omission("too_many_image_tags", result.full)] if result.full else []
        return responses.json_response({"matched": result.matched, "changed": result.changed, "errors": errors})
    return job_responses.started(result)


def _read_request(body: BulkTagging) -> BulkRequest:
    """Check what the model does not: which images are meant, and that the names do not contradict each other.

    :raises Invalid: when the request is not clear. Nothing was changed then.
    """
    errors = []
    if not body.ids and not body.filters:
        errors.append(FieldError("", "missing", "The request names no images; send `ids` or `filters` that are not empty."))
    elif {"ids", "filters"} <= body.model_fields_set:
        errors.append(FieldError("/filters", "bad_value", "The request has ids and filters; send only one of them."))
    errors += _check_names(body)
    if errors:
        raise Invalid("The request has invalid fields; see the `errors` field.", errors=errors)
    filters = image_filters.read_object(current_services().db, body.filters) if body.filters else None
    ids = None if filters is not None else tuple(dict.fromkeys(body.ids))
    return BulkRequest(ids, filters, (*body.add, *body.tags), tuple(body.remove))


def _check_names(body: BulkTagging) -> list[FieldError]:
    added = {key_of(name) for name in (*body.add, *body.tags)}
    removed = [key_of(name) for name in body.remove]
    if not added and not removed:
        return [FieldError("", "missing", "The request names no tags; send `add` or `remove`.")]
    if len(added | set(removed)) > MAX_NAMES:
        return [FieldError("", "too_long", f"The request has too many names of tags; send at most {MAX_NAMES}.")]
    contradiction = "The request adds and removes this tag; send it once."
    return [FieldError(f"/remove/{n}", "bad_value", contradiction) for n, key in enumerate(removed) if key in added]
