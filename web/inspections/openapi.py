"""The calls that look at one picture."""

from typing import Any, Final

from shared.augmentations import AUGMENTATIONS
from shared.inspections.recipes import DREAM_LAYERS, MAX_SEED, Dream
from shared.variants import DREAM
from web.http import openapi_components
from web.http.error_codes import OF_SOURCES

_URL: Final = {"type": "string", "format": "uri", "description": "http or https, of a public address"}
_LOOKING: Final = (
    *OF_SOURCES, "not_found", "invalid", "too_many_requests", "internal_error",
    "unavailable", "database_unavailable", "blobs_unavailable", "disk_full",
)  # fmt: skip
"""Codes of problems that all have who look at a picture: the service's, and those of inspections that failed."""


def look() -> dict[str, Any]:
    """Describe ``GET /``."""
    names = "|".join(AUGMENTATIONS)
    return {
        "operationId": "getStartPage",
        "summary": "The start page; with url= a picture and its augmentations",
        "parameters": [
            openapi_components.parameter("page", openapi_components.PAGE | {"description": "Without url"}),
            openapi_components.parameter("url", _URL),
            openapi_components.parameter("augmentations", {"type": "string", "pattern": f"^({names})(,({names}))*$", "description": "All of them by default"}),
            openapi_components.parameter("seed", {"type": "integer", "minimum": 0, "maximum": MAX_SEED, "default": 0, "description": "Of what is drawn by chance"}),
            openapi_components.parameter("wait", openapi_components.WAIT),
        ],
        "responses": openapi_components.awaited("A page; or the same as JSON, where Accept prefers that", openapi_components.ref("Look")) | openapi_components.or_pages(openapi_components.problems("foreign_origin", "query_too_slow", *_LOOKING)),
    }


def describe() -> dict[str, Any]:
    """Describe ``POST /img``."""
    return {
        "operationId": "describePicture",
        "summary": "What is known of a picture and what is in it; by URL or sent",
        "description": "One picture: as url, in the JSON or in the query, or in the body. The query may also be the encoded address itself: "
        "/img?https%3A%2F%2Fexample.org%2Fa.jpg, with other parameters after it.",
        "parameters": [
            openapi_components.parameter("url", _URL),
            openapi_components.parameter("effect", {"type": "string", "enum": [DREAM]}),
            openapi_components.parameter("layer", {"type": "integer", "minimum": DREAM_LAYERS[0], "maximum": DREAM_LAYERS[-1], "default": Dream().layer, "description": "How deep it dreams"}),
            openapi_components.parameter("strength", {"type": "number", "minimum": 0, "maximum": 1, "default": Dream().strength}),
            openapi_components.parameter("wait", openapi_components.WAIT),
            openapi_components.parameter("Content-Encoding", {"type": "string", "enum": ["gzip", "identity"]}, where="header"),
        ],
        "requestBody": {
            "content": {
                "application/json": {"schema": openapi_components.ref("PictureIn")},
                "multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": {"file": openapi_components.BINARY}}},
                "image/*": {"schema": openapi_components.BINARY},
                "application/octet-stream": {"schema": openapi_components.BINARY},
            },
        },
        "responses": openapi_components.awaited("What is known", openapi_components.ref("Description"), page=False) | openapi_components.problems(*openapi_components.BODY, *_LOOKING),
    }


def inspection() -> dict[str, Any]:
    """Describe ``GET /inspections/<id>``."""
    either = {"anyOf": [openapi_components.ref("Look"), openapi_components.ref("Description")]}
    return {
        "operationId": "getInspection",
        "summary": "What the call that asked for it would answer",
        "parameters": [openapi_components.in_path("inspection_id"), openapi_components.parameter("wait", openapi_components.WAIT), openapi_components.parameter("format", {"type": "string", "enum": ["json"]})],
        "responses": openapi_components.awaited("As JSON; what GET /?url= asked for also as a page, where Accept prefers that", either) | openapi_components.or_pages(openapi_components.problems(*_LOOKING)),
    }
