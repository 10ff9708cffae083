"""The OpenAPI description of the pages."""

from typing import Any

from shared.augmentations import AUGMENTATIONS
from shared.inspections.recipes import MAX_SEED
from web.http.openapi_components import (
    PAGE,
    WAIT,
    inspection_responses,
    or_html,
    parameter,
    path_id,
    problem_responses,
    ref,
    simple_operation,
)
from web.inspections.openapi import OPERATION_CODES, URL


def paths() -> dict[str, Any]:
    """Return the path items of this resource."""
    return {
        "/": {"get": _start_page()},
        "/batches/{batch_id}": {
            "get": simple_operation(
                "getBatchPage",
                "A batch as a page",
                "not_found",
                "invalid",
                "database_unavailable",
                "query_too_slow",
                media_type="text/html",
                parameters=[path_id("batch_id")],
            )
        },
    }


def _start_page() -> dict[str, Any]:
    names = "|".join(AUGMENTATIONS)
    augmentations = {"type": "string", "pattern": f"^({names})(,({names}))*$", "description": "All augmentations by default"}
    seed = {"type": "integer", "minimum": 0, "maximum": MAX_SEED, "default": 0, "description": "Seed of the augmentations' random parameters"}
    return {
        "operationId": "getStartPage",
        "summary": "The start page; with url= one image and its augmentations",
        "parameters": [
            parameter("page", PAGE | {"description": "Only without url"}),
            parameter("url", URL),
            parameter("augmentations", augmentations),
            parameter("seed", seed),
            parameter("wait", WAIT),
        ],
        "responses": inspection_responses("A page; JSON if Accept prefers it", ref("Look"))
        | or_html(problem_responses("foreign_origin", "query_too_slow", *OPERATION_CODES)),
    }
