"""The OpenAPI description of batches."""

from typing import Any, Final

from pydantic import BaseModel

from shared.ledger import queries
from web.batches.parameters import DEFAULT_IMAGES_PER_BATCH, MAX_IMAGES_PER_BATCH
from web.batches.response_schemas import Batch, BatchPage, CancelledBatch, ReprocessedBatch
from web.batches.serializers import MAX_IMAGE_BYTES
from web.http.openapi_components import (
    ID,
    JSON_BODY_CODES,
    PAGE,
    PER_PAGE,
    WAIT,
    json_content,
    parameter,
    path_id,
    problem_responses,
    ref,
)
from web.image_filter_schemas import BATCH_FILTERS
from web.reprocessing_options import Reprocessing

CURSOR: Final[dict[str, Any]] = {"anyOf": [{"const": queries.NEWEST}, {"type": "string", "pattern": ID["batch_id"]}]}
_IMAGES_PER_BATCH: Final[dict[str, Any]] = {"type": "integer", "minimum": 0, "maximum": MAX_IMAGES_PER_BATCH}
_IMAGE_BYTES: Final = f"The images have at most {MAX_IMAGE_BYTES} bytes of JSON in total. A batch with further images has images_more."
_CANCEL: Final = (
    "Images that are being processed are finished. An image that was queued to be processed again keeps its last result. "
    "The request needs access to all stores of the batch."
)
_REPROCESS: Final = (
    "The images keep their fields and files until the new result is stored; if there is none, a done image stays done. Images that wait or are "
    "being processed are left, and keep the options of the request that queued them: if all are, the response is 202 with `queued` 0. "
    "The request needs access to all stores of the batch."
)
MODELS: Final[tuple[type[BaseModel], ...]] = (Batch, BatchPage, Reprocessing, CancelledBatch, ReprocessedBatch)


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for batches."""
    return {
        "/image_batches": {"get": _list_batches()},
        "/image_batches/{batch_id}": {"get": _get_batch(), "delete": _delete_batch()},
        "/image_batches/{batch_id}/cancel": {"post": _cancel_batch()},
        "/image_batches/{batch_id}/reprocess": {"post": _reprocess_batch()},
    }


def _list_batches() -> dict[str, Any]:
    return {
        "operationId": "listImageBatches",
        "summary": "List batches, newest first",
        "description": "Of a batch with images of several stores, each reader sees the images of their own stores, and the total, counts and status of these images.",
        "parameters": _list_parameters(),
        "responses": {"200": json_content("A page of batches", "BatchPage")}
        | problem_responses("invalid", "bad_cursor", "database_unavailable", "query_too_slow"),
    }


def _get_batch() -> dict[str, Any]:
    return {
        "operationId": "getImageBatch",
        "summary": "Get a batch with all its images, or with its first images as in a list",
        "parameters": [
            path_id("batch_id"),
            parameter("wait", WAIT),
            parameter("images_per_batch", _IMAGES_PER_BATCH | {"description": f"Maximum number of images. {_IMAGE_BYTES} Without this parameter, the response contains all images."}),
        ],
        "responses": {"200": json_content("The batch", "Batch")}
        | problem_responses("not_found", "invalid", "database_unavailable", "query_too_slow"),
    }


def _delete_batch() -> dict[str, Any]:
    return {
        "operationId": "deleteImageBatch",
        "summary": "Delete a batch and its files. This requires access to all its stores.",
        "parameters": [path_id("batch_id")],
        "responses": {"204": {"description": "The batch has been deleted"}}
        | problem_responses("foreign_origin", "foreign_store", "not_found", "invalid", "database_unavailable"),
    }


def _cancel_batch() -> dict[str, Any]:
    return {
        "operationId": "cancelImageBatch",
        "summary": "Cancel a batch: end its queued images",
        "description": _CANCEL,
        "parameters": [path_id("batch_id")],
        "requestBody": {"required": False, "content": {"application/json": {"schema": ref("NoMembers")}}},
        "responses": {"202": json_content("The number of images that have ended, and of those that are being processed", "CancelledBatch")}
        | problem_responses(*JSON_BODY_CODES, "foreign_store", "not_found", "batch_closed", "update_unfinished", "database_unavailable"),
    }


def _reprocess_batch() -> dict[str, Any]:
    return {
        "operationId": "reprocessImageBatch",
        "summary": "Process finished images of a batch again",
        "description": _REPROCESS,
        "parameters": [path_id("batch_id")],
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref("Reprocessing")}}},
        "responses": {"202": json_content("The number of images that were queued, and the number of times that images of the batch have been queued again", "ReprocessedBatch")}
        | problem_responses(*JSON_BODY_CODES, "foreign_store", "not_found", "batch_cancelling", "update_unfinished", "model_unknown", "database_unavailable"),
    }


def _list_parameters() -> list[dict[str, Any]]:
    schemas: dict[str, dict[str, Any]] = {
        "page": PAGE | {"description": f"Page number. Readers of several, but not all, stores can use page numbers for the first {queries.PAGED_WITHOUT_TOTAL:,} batches; beyond these, they use cursor."},
        "per_page": PER_PAGE,
        "cursor": CURSOR,
        "images_per_batch": _IMAGES_PER_BATCH | {"default": DEFAULT_IMAGES_PER_BATCH, "description": f"Maximum number of images of each batch. {_IMAGE_BYTES}"},
        **BATCH_FILTERS,
    }
    return [parameter(name, schema) for name, schema in schemas.items()]
