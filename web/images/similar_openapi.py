"""The OpenAPI description of similar images."""

from typing import Any, Final

from pydantic import BaseModel, create_model

from shared.catalog.near_duplicates import DEFAULT_DISTANCE, MAX_DISTANCE
from shared.ids import IMAGE_ID_PATTERN
from web.http.openapi_components import json_content, paging_parameters, parameter, path_id, problem_responses
from web.image_schemas import Image

SimilarImage: Final[Any] = create_model(
    "SimilarImage", __base__=Image, __doc__="An image, and in how many bits its perceptual hash differs.", distance=(int, ...)
)


class SimilarImages(BaseModel):
    """A page of the images that look like one image, the most similar ones first, and then the newest.

    ``phash`` is the perceptual hash of that image: 64 bits as 16 hexadecimal digits. It is null if the image has none; then
    only exact copies are listed. ``complete`` is false if so many images look alike that others may be missing on this page.
    A page can have fewer images than asked for, even none, while ``next_cursor`` is not null.
    """

    images: list[SimilarImage]
    distance: int
    phash: str | None
    complete: bool
    next_cursor: str | None


MODELS: Final[tuple[type[BaseModel], ...]] = (SimilarImages,)
_DISTANCE: Final = {
    "type": "integer",
    "minimum": 0,
    "maximum": MAX_DISTANCE,
    "default": DEFAULT_DISTANCE,
    "description": "Number of bits in which the perceptual hashes may differ. Exact copies have the distance 0.",
}
_CURSOR: Final = {"type": "string", "pattern": f"^[0-9]{{1,2}}-{IMAGE_ID_PATTERN}$"}


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for similar images."""
    return {
        "/images/{image_id}/similar": {
            "get": {
                "operationId": "listSimilarImages",
                "summary": "List the images that look like one image: exact copies, and images with a close perceptual hash.",
                "parameters": [path_id("image_id"), parameter("distance", _DISTANCE), *paging_parameters(_CURSOR)],
                "responses": {"200": json_content("A page of similar images", "SimilarImages")}
                | problem_responses("not_found", "invalid", "bad_cursor", "database_unavailable", "query_too_slow"),
            }
        }
    }
