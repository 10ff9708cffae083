"""The pydantic model for a page of a list of images."""

from pydantic import BaseModel

from web.image_schemas import Image


class ImagePage(BaseModel):
    """A list of images.

    If the request has ``cursor``, the ``page``, ``total`` and ``pages`` fields are absent. ``total`` and ``pages`` are null if
    more than 10,000 images match, or if counting them takes too long. ``images_more`` is true if images of this page are left
    out because of their size; the list continues with them at ``next_cursor``.
    """

    per_page: int
    page: int | None = None
    total: int | None = None
    pages: int | None = None
    next_cursor: str | None
    images: list[Image]
    images_more: bool | None = None
