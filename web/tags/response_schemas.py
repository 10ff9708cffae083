"""The pydantic models for responses about tags. OpenAPI is generated from them."""

from datetime import datetime

from pydantic import BaseModel


class Tag(BaseModel):
    """A tag. ``count`` is the number of images with this tag in the stores of the reader.

    After a merge, an image that had both tags counts twice for some seconds. ``created_by`` is null if access was open, or if the
    reader is limited to some stores and has not created the tag.
    """

    name: str
    description: str | None
    color: str | None
    count: int
    created_at: datetime
    created_by: str | None


class TagPage(BaseModel):
    """A list of tags."""

    tags: list[Tag]
    next_cursor: str | None


class ImageTag(BaseModel):
    """A tag of an image: its name, and by whom and when the image was tagged. ``by`` is null if access was open."""

    name: str
    by: str | None
    at: datetime


class ImageTags(BaseModel):
    """The tags of an image, in the order in which it was tagged."""

    tags: list[ImageTag]


class Suggestion(BaseModel):
    """A label that was seen in an image and is not among its tags. ``score`` is null if people have seen it."""

    label: str
    score: float | None


class Suggestions(BaseModel):
    """The suggestions for an image, the best first."""

    suggestions: list[Suggestion]
