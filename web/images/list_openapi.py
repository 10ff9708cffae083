"""The OpenAPI description of the list of images."""

from typing import Any, Final

from shared.catalog.image_lists import MAX_ROWS
from shared.catalog.image_orders import DEFAULT_ORDER, NEWEST, ORDERS
from web.http.openapi_components import PAGE, PER_PAGE, json_content, parameter, problem_responses
from web.image_filter_schemas import IMAGE_FILTER_SCHEMAS
from web.images.list_encoding import MAX_IMAGE_BYTES

_CURSOR: Final[dict[str, Any]] = {
    "anyOf": [{"const": NEWEST}, {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,200}$"}],
    "description": f"`{NEWEST}`, which means the first page, or the next_cursor of a page with the same sort. Pages that are read with a cursor are not counted.",
}
_SORT: Final[dict[str, Any]] = {
    "type": "string",
    "enum": list(ORDERS),
    "default": DEFAULT_ORDER,
    "description": "Images with the same value are in the order of their ids. In an order by sharpness or by score, the list has only the images that have one.",
}


def paths() -> dict[str, Any]:
    """Return the OpenAPI path item for the list of images."""
    return {"/images": {"get": _list_images()}}


def _list_images() -> dict[str, Any]:
    schemas: dict[str, dict[str, Any]] = {
        "page": PAGE | {"description": f"Page number. Page numbers reach the first {MAX_ROWS:,} images; beyond these, use cursor."},
        "per_page": PER_PAGE,
        "cursor": _CURSOR,
        "sort": _SORT,
        **IMAGE_FILTER_SCHEMAS,
    }
    return {
        "operationId": "listImages",
        "summary": "List the images that meet all filters",
        "description": f"Up to {MAX_ROWS:,} images are counted. The images of a page have at most {MAX_IMAGE_BYTES} bytes of JSON in total; a page without some of its images has images_more, and the list continues with them at next_cursor.",
        "parameters": [parameter(name, schema) for name, schema in schemas.items()],
        "responses": {"200": json_content("A page of images", "ImagePage")}
        | problem_responses("invalid", "not_supported", "bad_cursor", "database_unavailable", "query_too_slow"),
    }
