"""The OpenAPI description of processing many images again."""

from typing import Any, Final

from pydantic import BaseModel

from shared.catalog.bulk_reprocessing import MAX_QUEUED
from web.http.openapi_components import JSON_BODY_CODES, job_started, problem_responses, ref
from web.reprocessing.schemas import BulkReprocessing

MODELS: Final[tuple[type[BaseModel], ...]] = (BulkReprocessing,)
_DESCRIPTION: Final = (
    "The filters match images of one's own stores; an image whose batch also has "
    "images of other stores is left. So are images that wait or are being processed: they keep the options of the request that queued them. "
    "The images keep their fields and files until the new result is stored. They get the priority low. "
    f"While {MAX_QUEUED:,} images are queued, the job waits."
)


def paths() -> dict[str, Any]:
    """Return the OpenAPI path item for processing many images again."""
    codes = ("database_unavailable", "too_many_jobs", "update_unfinished", "not_supported", "query_too_slow", "model_unknown")
    operation = {
        "operationId": "reprocessImages",
        "summary": "Process finished images again, by filters, in a job",
        "description": _DESCRIPTION,
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref("BulkReprocessing")}}},
        "responses": {"202": job_started("The job that queues the images was queued")} | problem_responses(*JSON_BODY_CODES, *codes),
    }
    return {"/reprocess": {"post": operation}}
