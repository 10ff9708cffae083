"""The OpenAPI description of uploads."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from shared.variants import THUMB
from web.http.openapi_components import (
    BINARY,
    BODY_CODES,
    CONTENT_DIGEST,
    json_content,
    parameter,
    problem_responses,
    ref,
)
from web.uploads import schemas
from web.uploads.response_schemas import Accepted

_LOCATION: Final = {"Location": {"description": "URL of the batch", "schema": {"type": "string"}}}
_LINKS: Final[dict[str, Any]] = {
    "batch": {"operationId": "getImageBatch", "parameters": {"batch_id": "$response.body#/batch_id"}},
    "delete": {"operationId": "deleteImageBatch", "parameters": {"batch_id": "$response.body#/batch_id"}},
    "thumbnail": {
        "operationId": "getVariant",
        "parameters": {"image_id": "$response.body#/images/0/id", "variant": THUMB},
    },
}


def _add_images(schema: dict[str, Any]) -> None:
    schema["properties"]["images"] = {"type": "array", "items": ref("ImageIn"), "minItems": 1}
    schema["required"] = ["images"]


class Envelope(schemas.Envelope):
    """An upload in the form of a JSON object with images and options."""

    # The base class is used for validation. It does not declare `images`, because the images are validated one by one,
    # separately from the object that contains them.
    model_config = ConfigDict(json_schema_extra=_add_images)


MODELS: Final[tuple[type[BaseModel], ...]] = (Accepted, schemas.ImageIn, schemas.ImageMeta, Envelope)


_ARRAY: Final = {"anyOf": [{"type": "array", "items": ref("ImageIn")}, ref("Envelope")]}
_METADATA_ARRAY: Final = {"anyOf": [{"type": "array", "items": ref("ImageMeta")}, {"type": "object"}]}


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for uploads."""
    return {
        "/upload_image_batch": {"post": _upload("uploadImageBatch", "Upload a batch of images", _ARRAY, _METADATA_ARRAY, {"type": "array", "items": BINARY})},
        "/images": {"post": _upload("uploadImage", "Upload one image. The response is that to a batch with one image.", ref("ImageIn"), ref("ImageMeta"), BINARY)},
    }


def _upload(operation_id: str, summary: str, json_schema: dict[str, Any], metadata: dict[str, Any], file: dict[str, Any]) -> dict[str, Any]:
    """Describe an upload.

    :param json_schema: the schema of a JSON body.
    :param metadata: the schema of the JSON in the part ``metadata`` of a form.
    :param file: the schema of the parts ``file`` of a form.
    """
    form = {
        "type": "object",
        "required": ["metadata", "file"],
        "properties": {
            "metadata": {"type": "string", "contentMediaType": "application/json", "contentSchema": metadata, "minLength": 2},
            "file": file,
        },
    }
    return {
        "operationId": operation_id,
        "summary": summary,
        "parameters": [
            parameter("Idempotency-Key", {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"}, where="header"),
            parameter("Prefer", {"type": "string", "examples": ["handling=lenient"]}, where="header"),
            parameter("Content-Encoding", {"type": "string", "enum": ["gzip", "identity"]}, where="header"),
            parameter("Content-Digest", CONTENT_DIGEST, where="header"),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": json_schema},
                "multipart/form-data": {"schema": form},
            },
        },
        "responses": {"202": json_content("The batch is accepted", "Accepted") | {"headers": _LOCATION, "links": _LINKS}}
        | problem_responses(
            *BODY_CODES, "foreign_store", "request_in_flight", "batch_deleted", "image_too_large", "not_supported", "bad_idempotency_key", "idempotency_mismatch",
            "temporary_reduced_capacity", "database_unavailable", "blobs_unavailable", "commit_unknown", "disk_full",
        ),
    }  # fmt: skip
