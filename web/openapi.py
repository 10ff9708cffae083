"""The OpenAPI 3.1 document, generated from the models that validate, and a page that shows it without any network."""

from typing import Any, Final

from flask import Blueprint, Response, render_template
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from shared.contract import AUGMENTATIONS, BOXES, DREAM, DREAM_LAYERS, ORIGINAL, THUMB
from shared.inspections.recipes import MAX_SEED, Dream
from shared.ledger import pages
from shared.states import BatchState, ImageState
from web import render
from web.codes import CODES, OF_FILES, OF_SOURCES
from web.params import STATUSES
from web.schemas import Envelope, ImageIn, ImageMeta, PictureIn

blueprint = Blueprint("openapi", __name__)
_REF: Final = "#/components/schemas/{model}"
_HEX: Final = "^[0-9a-f]{32}$"
_ID: Final = {"batch_id": _HEX, "image_id": "^[0-9a-f]{36}$", "inspection_id": _HEX, "result_id": _HEX}


class FieldProblem(BaseModel):
    """One bad field."""

    pointer: str
    code: str
    detail: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[FieldProblem] | None = None
    limit: str | None = None
    value: int | None = None
    free: int | None = None
    accepted: list[str] | None = None
    batch_id: str | None = None
    upstream_status: int | None = None


class Detection(BaseModel):
    """Something found; ``box`` is x1, y1, x2, y2 in pixels of the upright image."""

    label: str
    score: float
    box: list[float]


class Image(BaseModel):
    """An image as it is shown."""

    id: str
    batch_id: str
    index: int
    status: ImageState
    file_path: str
    url: str
    timestamp: str
    store_name: str
    camera_id: str
    barcode: str | None
    filename: str | None
    extra: dict[str, Any]
    content_type: str
    file_size: int
    sha256: str
    width: int | None
    height: int | None
    exif: dict[str, Any] | None
    quality: dict[str, float] | None
    detections: list[Detection]
    model: dict[str, str] | None
    augmentations: list[dict[str, Any]]
    barcodes: list[dict[str, Any]]
    barcode_check: str | None
    tags: list[str]
    error: dict[str, str] | None
    created_at: str
    updated_at: str
    finished_at: str | None


class Batch(BaseModel):
    """A batch as it is shown."""

    id: str
    status: BatchState
    total: int
    counts: dict[str, int]
    created_at: str
    finished_at: str | None
    images: list[Image]
    images_more: bool | None = None


class BatchPage(BaseModel):
    """A list of batches; ``page``, ``total`` and ``pages`` are absent with ``cursor=``."""

    per_page: int
    page: int | None = None
    total: int | None = None
    pages: int | None = None
    next_cursor: str | None
    batches: list[Batch]


class AcceptedImage(BaseModel):
    """An image's line in the answer to an upload."""

    id: str | None
    index: int
    file_path: str | None
    status: str
    errors: list[FieldProblem] | None = None


class Picture(BaseModel):
    """A picture as it was sent, and where it is shown: at most 700 pixels long, as a JPEG."""

    format: str
    mode: str
    width: int
    height: int
    bytes: int
    frames: int
    sha256: str
    url: str


class Augmented(BaseModel):
    """A picture that an augmentation made; ``url`` is null where ``error`` says that it could not."""

    name: str
    params: dict[str, Any] | None = None
    error: str | None = None
    url: str | None


class Look(BaseModel):
    """A picture and its augmentations."""

    source: str
    image: Picture
    augmentations: list[Augmented]
    seed: int
    links: dict[str, str]


class Share(BaseModel):
    """A colour and how much of the picture has it."""

    hex: str
    share: float


class Effect(BaseModel):
    """What was made of a picture by its effect."""

    name: str
    layer: int
    strength: float
    url: str


class Description(Picture):
    """What is known of a picture and what is in it; ``source`` is null for one that was sent."""

    source: str | None
    exif: dict[str, Any] | None
    icc: str | None
    phash: str
    brightness: float
    sharpness: float
    dominant_colors: list[Share]
    detections: list[Detection]
    model: dict[str, str] | None
    barcodes: list[dict[str, Any]]
    effect: Effect | None = None
    links: dict[str, str]


class Awaited(BaseModel):
    """An inspection that is not done yet."""

    id: str
    status: str
    source: str | None
    links: dict[str, str]


class LimitsShown(BaseModel):
    """What an upload may be."""

    max_body_bytes: int
    max_images: int
    max_image_bytes: int
    max_pixels: int
    formats: list[str]
    augmentations: list[str]
    default_augmentations: list[str]


class Accepted(BaseModel):
    """The answer to an upload."""

    batch_id: str
    status: str
    total: int
    images: list[AcceptedImage]
    links: dict[str, str]
    accepted: int | None = None
    rejected: int | None = None


@blueprint.get("/openapi.json")
def openapi_json() -> Response:
    """Give the document."""
    return render.as_json(document())


@blueprint.get("/docs")
def docs() -> str:
    """Show the document to a person."""
    return render_template("docs.html", api=document(), codes=CODES)


def document() -> dict[str, Any]:
    """Build the document."""
    models: list[type[BaseModel]] = [Problem, Batch, BatchPage, Accepted, LimitsShown, ImageIn, ImageMeta, Envelope, PictureIn, Look, Description, Awaited]
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    definitions = schemas["$defs"]
    definitions["Envelope"]["properties"]["images"] = {"type": "array", "items": _ref("ImageIn"), "minItems": 1}
    definitions["Envelope"]["required"] = ["images"]
    definitions["Problem"]["properties"]["code"]["enum"] = list(CODES)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Shelfsight", "version": "0.1.0", "summary": "Image batches from store cameras: accept, keep, look, show."},
        "paths": _paths(),
        "components": {"schemas": definitions},
    }


def _paths() -> dict[str, Any]:
    upload = {
        "operationId": "uploadImageBatch",
        "summary": "Upload a batch of images",
        "parameters": [
            _parameter("Idempotency-Key", {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"}, where="header"),
            _parameter("Prefer", {"type": "string", "examples": ["handling=lenient"]}, where="header"),
            _parameter("Content-Encoding", {"type": "string", "enum": ["gzip", "identity"]}, where="header"),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"anyOf": [{"type": "array", "items": _ref("ImageIn")}, _ref("Envelope")]}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["metadata", "file"],
                        "properties": {
                            "metadata": {"type": "string", "contentMediaType": "application/json", "minLength": 2},
                            "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        },
                    }
                },
            },
        },
        "responses": {"202": _json("Accepted", "Accepted") | {"headers": _LOCATION, "links": _LINKS}}
        | _problems(400, 401, 403, 408, 409, 410, 413, 415, 421, 422, 429, 503, 507),
    }
    listing = {
        "operationId": "listImageBatches",
        "summary": "List batches, newest first",
        "parameters": _list_parameters(),
        "responses": {"200": _json("A page", "BatchPage")} | _problems(401, 421, 422, 503),
    }
    one = {
        "operationId": "getImageBatch",
        "summary": "Show a batch",
        "parameters": [_in_path("batch_id"), _parameter("wait", _WAIT)],
        "responses": {"200": _json("The batch", "Batch")} | _problems(401, 404, 421, 422, 503),
    }
    delete = {
        "operationId": "deleteImageBatch",
        "summary": "Delete a batch and its files",
        "parameters": [_in_path("batch_id")],
        "responses": {"204": {"description": "Gone"}} | _problems(401, 403, 404, 421, 422, 503),
    }
    variants = {"type": "string", "enum": [THUMB, BOXES, *AUGMENTATIONS]}
    pictures = {"type": "string", "enum": [ORIGINAL, *AUGMENTATIONS, DREAM]}
    return {
        "/upload_image_batch": {"post": upload},
        "/image_batches": {"get": listing},
        "/image_batches/{batch_id}": {"get": one, "delete": delete},
        "/uploads/{name}": {"get": _file("getFile", "The stored image", [_parameter("name", {"type": "string"}, where="path")])},
        "/uploads/{image_id}/{variant}.jpg": {
            "get": _file(
                "getVariant", "A picture made from it", [_in_path("image_id"), _parameter("variant", variants, where="path")]
            )
        },
        "/limits": {
            "get": {
                "operationId": "getLimits",
                "summary": "What an upload may be",
                "responses": {"200": _json("The limits", "LimitsShown")} | _problems(401, 421, 422),
            }
        },
        "/healthz": {"get": _plain("getHealth", "This process answers")},
        "/readyz": {"get": _plain("getReadiness", "Everything answers")},
        "/metrics": {"get": _plain("getMetrics", "For Prometheus", media="text/plain")},
        "/openapi.json": {"get": _plain("getOpenApi", "This document")},
        "/docs": {"get": _plain("getDocs", "This document as a page", media="text/html")},
        "/": {"get": _start_page()},
        "/img": {"post": _describe()},
        "/inspections/{inspection_id}": {"get": _inspection()},
        "/pictures/{result_id}/{picture}.jpg": {
            "get": _file("getPicture", "A picture that was made for an inspection", [_in_path("result_id"), _parameter("picture", pictures, where="path")])
        },
        "/batches/{batch_id}": {"get": _plain("getBatchPage", "A batch as a page", 404, media="text/html", parameters=[_in_path("batch_id")])},
    }


_LOCATION: Final = {"Location": {"description": "Address of the batch", "schema": {"type": "string"}}}
_RETRY: Final = {"Retry-After": {"description": "Seconds after which to try again, where that makes sense", "schema": {"type": "integer"}}}
_AWAIT_AT: Final = {"Location": {"description": "Where it is once it is done", "schema": {"type": "string"}}}
_PAGE: Final = {"type": "integer", "minimum": 1, "maximum": 10**9}
_URL: Final = {"type": "string", "format": "uri", "description": "http or https, of a public address"}
_WAIT: Final = {"type": "integer", "minimum": 0, "description": "Seconds; above 30 is taken as 30"}
_HTML: Final = {"text/html": {"schema": {"type": "string"}}}
_BINARY: Final = {"type": "string", "format": "binary"}
_LOOKING: Final = (401, 413, 415, 421, 422, 429, 500, 502, 503, 504, 507)
"""Statuses of problems that all have who look at a picture: the service's, and those of inspections that failed."""
_LINKS: Final[dict[str, Any]] = {
    "batch": {"operationId": "getImageBatch", "parameters": {"batch_id": "$response.body#/batch_id"}},
    "delete": {"operationId": "deleteImageBatch", "parameters": {"batch_id": "$response.body#/batch_id"}},
    "thumbnail": {
        "operationId": "getVariant",
        "parameters": {"image_id": "$response.body#/images/0/id", "variant": THUMB},
    },
}


def _start_page() -> dict[str, Any]:
    names = "|".join(AUGMENTATIONS)
    return {
        "operationId": "getStartPage",
        "summary": "The start page; with url= a picture and its augmentations",
        "parameters": [
            _parameter("page", _PAGE | {"description": "Without url"}),
            _parameter("url", _URL),
            _parameter("augmentations", {"type": "string", "pattern": f"^({names})(,({names}))*$", "description": "All of them by default"}),
            _parameter("seed", {"type": "integer", "minimum": 0, "maximum": MAX_SEED, "default": 0, "description": "Of what is drawn by chance"}),
            _parameter("wait", _WAIT),
        ],
        "responses": _awaited("A page; or the same as JSON, where Accept prefers that", _ref("Look")) | _or_pages(_problems(403, 404, *_LOOKING, of_sources=True)),
    }


def _describe() -> dict[str, Any]:
    return {
        "operationId": "describePicture",
        "summary": "What is known of a picture and what is in it; by URL or sent",
        "description": "One picture: as url, in the JSON or in the query, or in the body. The query may also be the encoded address itself: "
        "/img?https%3A%2F%2Fexample.org%2Fa.jpg, with other parameters after it.",
        "parameters": [
            _parameter("url", _URL),
            _parameter("effect", {"type": "string", "enum": [DREAM]}),
            _parameter("layer", {"type": "integer", "minimum": DREAM_LAYERS[0], "maximum": DREAM_LAYERS[-1], "default": Dream().layer, "description": "How deep it dreams"}),
            _parameter("strength", {"type": "number", "minimum": 0, "maximum": 1, "default": Dream().strength}),
            _parameter("wait", _WAIT),
            _parameter("Content-Encoding", {"type": "string", "enum": ["gzip", "identity"]}, where="header"),
        ],
        "requestBody": {
            "content": {
                "application/json": {"schema": _ref("PictureIn")},
                "multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": {"file": _BINARY}}},
                "image/*": {"schema": _BINARY},
                "application/octet-stream": {"schema": _BINARY},
            },
        },
        "responses": _awaited("What is known", _ref("Description"), page=False) | _problems(400, 403, 404, 408, *_LOOKING, of_sources=True),
    }


def _inspection() -> dict[str, Any]:
    either = {"anyOf": [_ref("Look"), _ref("Description")]}
    return {
        "operationId": "getInspection",
        "summary": "What the call that asked for it would answer",
        "parameters": [_in_path("inspection_id"), _parameter("wait", _WAIT), _parameter("format", {"type": "string", "enum": ["json"]})],
        "responses": _awaited("As JSON; what GET /?url= asked for also as a page, where Accept prefers that", either) | _or_pages(_problems(404, *_LOOKING, of_sources=True)),
    }


def _awaited(description: str, schema: dict[str, Any], *, page: bool = True) -> dict[str, Any]:
    """Give the answers of what is made while one waits, as long as nothing goes wrong."""
    as_page = _HTML if page else {}
    done = {"description": description, "content": {"application/json": {"schema": schema}, **as_page}}
    later = {"inspection": {"operationId": "getInspection", "parameters": {"inspection_id": "$response.body#/id"}}}
    waiting = {
        "description": "Not done within the wait",
        "headers": _RETRY | _AWAIT_AT,
        "content": {"application/json": {"schema": _ref("Awaited")}, **as_page},
        "links": later,
    }
    return {"200": done, "202": waiting} | ({"304": {"description": "Not modified"}} if page else {})


def _or_pages(problems: dict[str, Any]) -> dict[str, Any]:
    """Say that problems are pages for those who want pages."""
    return {status: problem | {"content": problem["content"] | _HTML} for status, problem in problems.items()}


def _list_parameters() -> list[dict[str, Any]]:
    text = {"type": "string", "minLength": 1, "maxLength": 200}
    when = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}], "description": "RFC 3339 or Unix seconds"}
    schemas: dict[str, dict[str, Any]] = {
        "page": _PAGE,
        "per_page": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
        "cursor": {"anyOf": [{"const": pages.NEWEST}, {"type": "string", "pattern": _ID["batch_id"]}]},
        "images_per_batch": {"type": "integer", "minimum": 0, "maximum": 1000, "default": 100},
        "status": {"type": "string", "enum": list(STATUSES)},
        "min_score": {"type": "number", "minimum": 0, "maximum": 1},
        "since": when,
        "until": when,
        **dict.fromkeys(("store_name", "camera_id", "barcode", "label", "tag"), text),
    }
    return [_parameter(name, schema) for name, schema in schemas.items()]


def _file(operation: str, summary: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    binary = {"image/*": {"schema": _BINARY}}
    ok = {"200": {"description": summary, "content": binary}, "206": {"description": "A part of it", "content": binary}}
    ok["304"] = {"description": "Not modified"}
    responses = ok | _problems(401, 404, 412, 416, 421, 503)
    return {"operationId": operation, "summary": summary, "parameters": parameters, "responses": responses}


def _plain(operation: str, summary: str, *problems: int, media: str = "application/json", parameters: Any = None) -> dict[str, Any]:
    answer = {"description": summary, "content": {media: {"schema": {} if media == "application/json" else {"type": "string"}}}}
    refusals = _problems(401, 421, 422, 503, *problems)
    responses = {"200": answer} | (_or_pages(refusals) if media == "text/html" else refusals)
    return {"operationId": operation, "summary": summary, "responses": responses} | ({"parameters": parameters} if parameters else {})


def _problems(*statuses: int, of_sources: bool = False) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": _ref("Problem")}}
    others = OF_FILES if of_sources else OF_SOURCES
    return {
        str(status): {
            "description": "One of: " + ", ".join(code for code, (its, _) in CODES.items() if its == status and code not in others),
            "headers": _RETRY,
            "content": content,
        }
        for status in statuses
    }


def _json(description: str, model: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(model)}}}


def _ref(model: str) -> dict[str, str]:
    return {"$ref": _REF.format(model=model)}


def _in_path(name: str) -> dict[str, Any]:
    return _parameter(name, {"type": "string", "pattern": _ID[name]}, where="path")


def _parameter(name: str, schema: dict[str, Any], where: str = "query") -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}
