"""The OpenAPI description of tagging many images."""

from typing import Any, Final

from pydantic import BaseModel

from shared.catalog.bulk_tags import MAX_IN_REQUEST
from web.http.openapi_components import JSON_BODY_CODES, job_started, json_content, problem_responses, ref
from web.tags.bulk_schemas import BulkTagged, BulkTagging

MODELS: Final[tuple[type[BaseModel], ...]] = (BulkTagging, BulkTagged)


def paths() -> dict[str, Any]:
    """Return the OpenAPI path item for tagging many images."""
    success = {
        "200": json_content("The images have been tagged", "BulkTagged"),
        "202": job_started(f"The request is about more than {MAX_IN_REQUEST:,} images, or counting them takes long, so a job was queued"),
    }
    codes = ("database_unavailable", "unknown_image", "foreign_store", "too_many_tags", "too_many_jobs", "not_supported", "query_too_slow")
    operation = {
        "operationId": "tagImages",
        "summary": "Add and remove tags of many images, by their ids or by filters",
        "description": "Filters match images of one's own stores. New names make tags.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref("BulkTagging")}}},
        "responses": success | problem_responses(*JSON_BODY_CODES, *codes),
    }
    return {"/images/tags": {"post": operation}}
