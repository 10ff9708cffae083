"""The calls on batches."""

from typing import Any, Final

from shared.ledger import queries
from shared.variants import THUMB
from web.http import openapi_components
from web.http.query import STATUSES

_LOCATION: Final = {"Location": {"description": "Address of the batch", "schema": {"type": "string"}}}
_LINKS: Final[dict[str, Any]] = {
    "batch": {"operationId": "getImageBatch", "parameters": {"batch_id": "$response.body#/batch_id"}},
    "delete": {"operationId": "deleteImageBatch", "parameters": {"batch_id": "$response.body#/batch_id"}},
    "thumbnail": {
        "operationId": "getVariant",
        "parameters": {"image_id": "$response.body#/images/0/id", "variant": THUMB},
    },
}


def upload() -> dict[str, Any]:
    """Describe ``POST /upload_image_batch``."""
    return {
        "operationId": "uploadImageBatch",
        "summary": "Upload a batch of images",
        "parameters": [
            openapi_components.parameter("Idempotency-Key", {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"}, where="header"),
            openapi_components.parameter("Prefer", {"type": "string", "examples": ["handling=lenient"]}, where="header"),
            openapi_components.parameter("Content-Encoding", {"type": "string", "enum": ["gzip", "identity"]}, where="header"),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"anyOf": [{"type": "array", "items": openapi_components.ref("ImageIn")}, openapi_components.ref("Envelope")]}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["metadata", "file"],
                        "properties": {
                            "metadata": {"type": "string", "contentMediaType": "application/json", "minLength": 2},
                            "file": {"type": "array", "items": openapi_components.BINARY},
                        },
                    }
                },
            },
        },
        "responses": {"202": openapi_components.as_json("Accepted", "Accepted") | {"headers": _LOCATION, "links": _LINKS}}
        | openapi_components.problems(
            *openapi_components.BODY, "request_in_flight", "batch_deleted", "image_too_large", "not_supported", "bad_idempotency_key", "idempotency_mismatch",
            "database_unavailable", "blobs_unavailable", "commit_unknown", "disk_full",
        ),
    }  # fmt: skip


def listing() -> dict[str, Any]:
    """Describe ``GET /image_batches``."""
    return {
        "operationId": "listImageBatches",
        "summary": "List batches, newest first",
        "parameters": _list_parameters(),
        "responses": {"200": openapi_components.as_json("A page", "BatchPage")} | openapi_components.problems("invalid", "bad_cursor", "database_unavailable", "query_too_slow"),
    }


def one() -> dict[str, Any]:
    """Describe ``GET /image_batches/<id>``."""
    return {
        "operationId": "getImageBatch",
        "summary": "Show a batch",
        "parameters": [openapi_components.in_path("batch_id"), openapi_components.parameter("wait", openapi_components.WAIT)],
        "responses": {"200": openapi_components.as_json("The batch", "Batch")} | openapi_components.problems("not_found", "invalid", "database_unavailable", "query_too_slow"),
    }


def delete() -> dict[str, Any]:
    """Describe ``DELETE /image_batches/<id>``."""
    return {
        "operationId": "deleteImageBatch",
        "summary": "Delete a batch and its files",
        "parameters": [openapi_components.in_path("batch_id")],
        "responses": {"204": {"description": "Gone"}} | openapi_components.problems("foreign_origin", "not_found", "invalid", "database_unavailable"),
    }


def _list_parameters() -> list[dict[str, Any]]:
    text = {"type": "string", "minLength": 1, "maxLength": 200}
    when = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}], "description": "RFC 3339 or Unix seconds"}
    schemas: dict[str, dict[str, Any]] = {
        "page": openapi_components.PAGE,
        "per_page": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
        "cursor": {"anyOf": [{"const": queries.NEWEST}, {"type": "string", "pattern": openapi_components.ID["batch_id"]}]},
        "images_per_batch": {"type": "integer", "minimum": 0, "maximum": 1000, "default": 100},
        "status": {"type": "string", "enum": list(STATUSES)},
        "min_score": {"type": "number", "minimum": 0, "maximum": 1},
        "since": when,
        "until": when,
        **dict.fromkeys(("store_name", "camera_id", "barcode", "label", "tag"), text),
    }
    return [openapi_components.parameter(name, schema) for name, schema in schemas.items()]
