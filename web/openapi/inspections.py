"""The calls that look at one picture."""

from typing import Any, Final

from shared.contract import AUGMENTATIONS, DREAM, DREAM_LAYERS
from shared.inspections.recipes import MAX_SEED, Dream
from web.codes import OF_SOURCES
from web.openapi import parts

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
            parts.parameter("page", parts.PAGE | {"description": "Without url"}),
            parts.parameter("url", _URL),
            parts.parameter("augmentations", {"type": "string", "pattern": f"^({names})(,({names}))*$", "description": "All of them by default"}),
            parts.parameter("seed", {"type": "integer", "minimum": 0, "maximum": MAX_SEED, "default": 0, "description": "Of what is drawn by chance"}),
            parts.parameter("wait", parts.WAIT),
        ],
        "responses": parts.awaited("A page; or the same as JSON, where Accept prefers that", parts.ref("Look")) | parts.or_pages(parts.problems("foreign_origin", "query_too_slow", *_LOOKING)),
    }


def describe() -> dict[str, Any]:
    """Describe ``POST /img``."""
    return {
        "operationId": "describePicture",
        "summary": "What is known of a picture and what is in it; by URL or sent",
        "description": "One picture: as url, in the JSON or in the query, or in the body. The query may also be the encoded address itself: "
        "/img?https%3A%2F%2Fexample.org%2Fa.jpg, with other parameters after it.",
        "parameters": [
            parts.parameter("url", _URL),
            parts.parameter("effect", {"type": "string", "enum": [DREAM]}),
            parts.parameter("layer", {"type": "integer", "minimum": DREAM_LAYERS[0], "maximum": DREAM_LAYERS[-1], "default": Dream().layer, "description": "How deep it dreams"}),
            parts.parameter("strength", {"type": "number", "minimum": 0, "maximum": 1, "default": Dream().strength}),
            parts.parameter("wait", parts.WAIT),
            parts.parameter("Content-Encoding", {"type": "string", "enum": ["gzip", "identity"]}, where="header"),
        ],
        "requestBody": {
            "content": {
                "application/json": {"schema": parts.ref("PictureIn")},
                "multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": {"file": parts.BINARY}}},
                "image/*": {"schema": parts.BINARY},
                "application/octet-stream": {"schema": parts.BINARY},
            },
        },
        "responses": parts.awaited("What is known", parts.ref("Description"), page=False) | parts.problems(*parts.BODY, *_LOOKING),
    }


def inspection() -> dict[str, Any]:
    """Describe ``GET /inspections/<id>``."""
    either = {"anyOf": [parts.ref("Look"), parts.ref("Description")]}
    return {
        "operationId": "getInspection",
        "summary": "What the call that asked for it would answer",
        "parameters": [parts.in_path("inspection_id"), parts.parameter("wait", parts.WAIT), parts.parameter("format", {"type": "string", "enum": ["json"]})],
        "responses": parts.awaited("As JSON; what GET /?url= asked for also as a page, where Accept prefers that", either) | parts.or_pages(parts.problems(*_LOOKING)),
    }
