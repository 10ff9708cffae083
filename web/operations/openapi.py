"""The OpenAPI description of limits, health, readiness and metrics."""

from typing import Any, Final

from pydantic import BaseModel

from web.http.openapi_components import json_content, problem_responses, simple_operation
from web.operations.schemas import LimitsShown

MODELS: Final[tuple[type[BaseModel], ...]] = (LimitsShown,)
_READY: Final = "Whether uploads are accepted and processed: MongoDB, Redis, blob store, disk, a worker and its model are available, and this process is not drained"


def paths() -> dict[str, Any]:
    """Return the path items of this resource."""
    return {
        "/limits": {
            "get": {
                "operationId": "getLimits",
                "summary": "Limits of an upload",
                "responses": {"200": json_content("The limits", "LimitsShown")} | problem_responses("invalid"),
            }
        },
        "/healthz": {"get": simple_operation("getHealth", "Whether this process responds")},
        "/readyz": {"get": simple_operation("getReadiness", _READY, "not_ready")},
        "/metrics": {"get": simple_operation("getMetrics", "Metrics for Prometheus", "database_unavailable", media_type="text/plain")},
    }
