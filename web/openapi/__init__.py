"""The OpenAPI 3.1 document, generated from the models that validate, and a page that shows it without any network."""

from typing import Any

from flask import Blueprint, Response, render_template
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from shared.contract import AUGMENTATIONS, BOXES, DREAM, ORIGINAL, THUMB
from web import render
from web.codes import CODES
from web.openapi import batches, inspections, parts
from web.openapi.models import Accepted, Awaited, Batch, BatchPage, Description, LimitsShown, Look, Problem
from web.schemas import Envelope, ImageIn, ImageMeta, PictureIn

blueprint = Blueprint("openapi", __name__)


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
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=parts.REF)
    definitions = schemas["$defs"]
    definitions["Envelope"]["properties"]["images"] = {"type": "array", "items": parts.ref("ImageIn"), "minItems": 1}
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
            "get": parts.file("getFile", "The stored image", [parts.parameter("name", {"type": "string"}, where="path")], "image_pending", "image_failed")
        },
        "/uploads/{image_id}/{variant}.jpg": {
            "get": parts.file(
                "getVariant",
                "A picture made from it",
                [parts.in_path("image_id"), parts.parameter("variant", variants, where="path")],
                "image_pending",
                "image_failed",
            )
        },
        "/limits": {
            "get": {
                "operationId": "getLimits",
                "summary": "What an upload may be",
                "responses": {"200": parts.as_json("The limits", "LimitsShown")} | parts.problems("invalid"),
            }
        },
        "/healthz": {"get": parts.plain("getHealth", "This process answers")},
        "/readyz": {"get": parts.plain("getReadiness", "What batches need is there: MongoDB, Redis, files, disk, a worker and its model; and no drain", "not_ready")},
        "/metrics": {"get": parts.plain("getMetrics", "For Prometheus", "database_unavailable", media="text/plain")},
        "/openapi.json": {"get": parts.plain("getOpenApi", "This document")},
        "/docs": {"get": parts.plain("getDocs", "This document as a page", media="text/html")},
        "/": {"get": inspections.look()},
        "/img": {"post": inspections.describe()},
        "/inspections/{inspection_id}": {"get": inspections.inspection()},
        "/pictures/{result_id}/{picture}.jpg": {
            "get": parts.file("getPicture", "A picture that was made for an inspection", [parts.in_path("result_id"), parts.parameter("picture", pictures, where="path")])
        },
        "/batches/{batch_id}": {"get": parts.plain("getBatchPage", "A batch as a page", "not_found", "invalid", "database_unavailable", "query_too_slow", media="text/html", parameters=[parts.in_path("batch_id")])},
    }
