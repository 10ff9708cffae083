"""The query parameters that page a list of batches. ``web.image_filters`` has its filters."""

from collections.abc import Callable
from typing import Any, Final

from web.http import cursor_pages, query

DEFAULT_IMAGES_PER_BATCH: Final = 100
MAX_IMAGES_PER_BATCH: Final = 1000
PAGING: Final[dict[str, Callable[[str], Any]]] = {
    "page": query.integer(1, query.MAX_PAGE),
    **cursor_pages.PARAMETERS,
    "images_per_batch": query.integer(0, MAX_IMAGES_PER_BATCH),
}
