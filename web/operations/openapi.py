"""The OpenAPI description of the limits, health, readiness and metrics operations."""

from typing import Any, Final

from pydantic import BaseModel

from web.http.openapi_components import json_content, problem_responses, simple_operation
from web.operations.response_schemas import UploadLimits

MODELS: Final[tuple[type[BaseModel], ...]] = (UploadLimits,)
_READY: Final = "Checks whether MongoDB and its indexes, Redis, the blob store, the disk, a worker and its model are available, and whether this process is being drained."


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for limits, health, readiness and metrics."""
    return {
        "/limits": {
            "get": {
                "operationId": "getLimits",
                "summary": "Get the limits of an upload",
                "responses": {"200": json_content("The limits", "UploadLimits")} | problem_responses("invalid"),
            }
        },
        "/healthz": {"get": simple_operation("getHealth", "Check whether this process responds")},
        "/readyz": {"get": simple_operation("getReadiness", "Check whether uploads are accepted and processed", "not_ready") | {"description": _READY}},
        "/metrics": {"get": simple_operation("getMetrics", "Get the metrics for Prometheus", "database_unavailable", media_type="text/plain")},
    }
