"""The OpenAPI description of inspections."""

from typing import Any, Final

from pydantic import BaseModel

from shared.augmentations import AUGMENTATIONS
from shared.inspections.recipes import Dream
from shared.variants import DREAM, DREAM_LAYERS, ORIGINAL
from web.http.error_codes import INSPECTION_CODES
from web.http.openapi_components import (
    BINARY,
    BODY_CODES,
    CONTENT_DIGEST,
    HTML,
    RETRY_AFTER,
    WAIT,
    file_operation,
    or_html,
    parameter,
    path_id,
    problem_responses,
    ref,
    with_rate_limit,
)
from web.inspections.response_schemas import AugmentedImage, ImageDescription, PendingInspection
from web.inspections.schemas import ImageByUrl

MODELS: Final[tuple[type[BaseModel], ...]] = (ImageByUrl, AugmentedImage, ImageDescription, PendingInspection)
URL: Final = {"type": "string", "format": "uri", "description": "An http or https URL whose host has a public address"}
_INSPECTION_LOCATION: Final = {"Location": {"description": "URL of the inspection", "schema": {"type": "string"}}}
OPERATION_CODES: Final = (
    *INSPECTION_CODES, "not_found", "invalid", "too_many_requests",
    "unavailable", "database_unavailable", "blobs_unavailable", "disk_full",
)  # fmt: skip
"""Error codes that every operation that inspects an image can return, including the codes of failed inspections."""


def inspection_responses(description: str, schema: dict[str, Any], *, html: bool = True) -> dict[str, Any]:
    """Describe the responses with status 200 and 202 of an operation that waits for an inspection.

    :param html: whether the operation can also return an HTML page. If True, the response with status 304 is described,
        too.
    """
    page = HTML if html else {}
    finished = {"description": description, "content": {"application/json": {"schema": schema}, **page}}
    unfinished = {
        "description": "The inspection did not finish within the waiting time",
        "headers": RETRY_AFTER | _INSPECTION_LOCATION,
        "content": {"application/json": {"schema": ref("PendingInspection")}, **page},
        "links": {"inspection": {"operationId": "getInspection", "parameters": {"inspection_id": "$response.body#/id"}}},
    }
    return {"200": finished, "202": unfinished} | ({"304": {"description": "Not modified"}} if html else {})


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for inspections, except ``GET /``, which ``web.pages.openapi`` describes."""
    picture = parameter("picture", {"type": "string", "enum": [ORIGINAL, *AUGMENTATIONS, DREAM]}, where="path")
    return {
        "/img": {"post": _describe()},
        "/inspections/{inspection_id}": {"get": _get_inspection()},
        "/pictures/{result_id}/{picture}.jpg": {"get": file_operation("getPicture", "Get an image made by an inspection", [path_id("result_id"), picture])},
    }


def _describe() -> dict[str, Any]:
    layer = {
        "type": "integer",
        "minimum": DREAM_LAYERS[0],
        "maximum": DREAM_LAYERS[-1],
        "default": Dream().layer,
        "description": "Number of the model layer whose activations deepdream amplifies. A larger number means a deeper layer.",
    }
    return {
        "operationId": "describePicture",
        "summary": "Describe one image, sent as a URL or uploaded, and the objects detected in it",
        "description": "Send one image. Either send its URL in the JSON body or in the query, or send its bytes in the body. "
        "The query can also consist of the percent-encoded URL itself, followed by other parameters, "
        "for example /img?https%3A%2F%2Fexample.org%2Fa.jpg&wait=5",
        "parameters": [
            parameter("url", URL),
            parameter("effect", {"type": "string", "enum": [DREAM]}),
            parameter("layer", layer),
            parameter("strength", {"type": "number", "minimum": 0, "maximum": 1, "default": Dream().strength}),
            parameter("wait", WAIT),
            parameter("Content-Encoding", {"type": "string", "enum": ["gzip", "identity"]}, where="header"),
            parameter("Content-Digest", CONTENT_DIGEST, where="header"),
        ],
        "requestBody": {
            "content": {
                "application/json": {"schema": ref("ImageByUrl")},
                "multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": {"file": BINARY}}},
                "image/*": {"schema": BINARY},
                "application/octet-stream": {"schema": BINARY},
            },
        },
        "responses": with_rate_limit(
            inspection_responses("The description of the image", ref("ImageDescription"), html=False) | problem_responses(*BODY_CODES, *OPERATION_CODES)
        ),
    }


def _get_inspection() -> dict[str, Any]:
    return {
        "operationId": "getInspection",
        "summary": "Get the response of the operation that started this inspection",
        "parameters": [
            path_id("inspection_id"),
            parameter("wait", WAIT),
            parameter("format", {"type": "string", "enum": ["json"]}),
        ],
        "responses": inspection_responses(
            "JSON, or a page if Accept prefers HTML and the inspection was started by GET /?url=",
            {"anyOf": [ref("AugmentedImage"), ref("ImageDescription")]},
        )
        | or_html(problem_responses(*OPERATION_CODES)),
    }
