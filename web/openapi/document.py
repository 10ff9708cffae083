"""The OpenAPI 3.1 document, generated from the models that validate, and a page that shows it without any network."""

from typing import Any

from flask import Blueprint, Response, render_template
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from shared.augmentations import AUGMENTATIONS
from shared.variants import BOXES, DREAM, ORIGINAL, THUMB
from web.batches import openapi as batches
from web.batches import serializers
from web.batches.response_schemas import Accepted, Awaited, Batch, BatchPage, Description, LimitsShown, Look, Problem
from web.http import openapi_components
from web.http.error_codes import CODES
from web.inspections import openapi as inspections
from web.uploads.schemas import Envelope, ImageIn, ImageMeta, PictureIn

blueprint = Blueprint("openapi", __name__)


@blueprint.get("/openapi.json")
def openapi_json() -> Response:
    """Give the document."""
    return serializers.as_json(document())


@blueprint.get("/docs")
def docs() -> str:
    """Show the document to a person."""
    return render_template("openapi.html", api=document(), codes=CODES)


def document() -> dict[str, Any]:
    """Build the document."""
    models: list[type[BaseModel]] = [Problem, Batch, BatchPage, Accepted, LimitsShown, ImageIn, ImageMeta, Envelope, PictureIn, Look, Description, Awaited]
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=openapi_components.REF)
    definitions = schemas["$defs"]
    definitions["Envelope"]["properties"]["images"] = {"type": "array", "items": openapi_components.ref("ImageIn"), "minItems": 1}
    definitions["Envelope"]["required"] = ["images"]
    definitions["Problem"]["properties"]["code"]["enum"] = list(CODES)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Shelfsight", "version": "0.1.0", "summary": "Image batches from store cameras: accept, keep, look, show."},
        "paths": _paths(),
        "components": {"schemas": definitions},
    }


def _paths() -> dict[str, Any]:
    variants = {"type": "string", "enum": [THUMB, BOXES, *AUGMENTATIONS]}
    pictures = {"type": "string", "enum": [ORIGINAL, *AUGMENTATIONS, DREAM]}
    return {
        "/upload_image_batch": {"post": batches.upload()},
        "/image_batches": {"get": batches.listing()},
        "/image_batches/{batch_id}": {"get": batches.one(), "delete": batches.delete()},
        "/uploads/{name}": {
            "get": openapi_components.file("getFile", "The stored image", [openapi_components.parameter("name", {"type": "string"}, where="path")], "image_pending", "image_failed")
        },
        "/uploads/{image_id}/{variant}.jpg": {
            "get": openapi_components.file(
                "getVariant",
                "A picture made from it",
                [openapi_components.in_path("image_id"), openapi_components.parameter("variant", variants, where="path")],
                "image_pending",
                "image_failed",
            )
        },
        "/limits": {
            "get": {
                "operationId": "getLimits",
                "summary": "What an upload may be",
                "responses": {"200": openapi_components.as_json("The limits", "LimitsShown")} | openapi_components.problems("invalid"),
            }
        },
        "/healthz": {"get": openapi_components.plain("getHealth", "This process answers")},
        "/readyz": {"get": openapi_components.plain("getReadiness", "What batches need is there: MongoDB, Redis, files, disk, a worker and its model; and no drain", "not_ready")},
        "/metrics": {"get": openapi_components.plain("getMetrics", "For Prometheus", "database_unavailable", media="text/plain")},
        "/openapi.json": {"get": openapi_components.plain("getOpenApi", "This document")},
        "/docs": {"get": openapi_components.plain("getDocs", "This document as a page", media="text/html")},
        "/": {"get": inspections.look()},
        "/img": {"post": inspections.describe()},
        "/inspections/{inspection_id}": {"get": inspections.inspection()},
        "/pictures/{result_id}/{picture}.jpg": {
            "get": openapi_components.file("getPicture", "A picture that was made for an inspection", [openapi_components.in_path("result_id"), openapi_components.parameter("picture", pictures, where="path")])
        },
        "/batches/{batch_id}": {"get": openapi_components.plain("getBatchPage", "A batch as a page", "not_found", "invalid", "database_unavailable", "query_too_slow", media="text/html", parameters=[openapi_components.in_path("batch_id")])},
    }
