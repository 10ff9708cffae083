"""The pydantic models for tagging many images. They validate requests, and OpenAPI is generated from them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from shared.catalog.bulk_tags import MAX_IDS
from shared.ids import IMAGE_ID_PATTERN
from web.tags.schemas import MAX_NAMES, TagName

_TagNames = Annotated[list[TagName], Field(default_factory=list, max_length=MAX_NAMES)]
_ImageId = Annotated[str, StringConstraints(strict=True, pattern=f"^{IMAGE_ID_PATTERN}$")]


class BulkTagging(BaseModel):
    """Which images to tag, either by their ids or by filters, and the tags to add and to remove. ``tags`` means the same as ``add``."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[_ImageId], Field(default_factory=list, max_length=MAX_IDS)]
    filters: Annotated[dict[str, Any], Field(default_factory=dict, description="The filters of GET /images by name, with their values; at least one")]
    add: _TagNames
    tags: _TagNames
    remove: _TagNames


class SkippedImages(BaseModel):
    """Why images that matched were left as they were."""

    code: str = Field(description="`too_many_image_tags`: they would have too many tags")
    detail: str


class BulkTagged(BaseModel):
    """How many images matched, and how many of them were changed. The others had the tags already, or none of those to remove."""

    matched: int
    changed: int
    errors: list[SkippedImages]
