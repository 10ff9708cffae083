"""The query parameters that filter and page a list of batches."""

from collections.abc import Callable
from typing import Any, Final

from shared.ledger.filters import Filters
from shared.states import BatchState, ImageState
from web.http import cursor_pages, query

STATUSES: Final = (*(state.value for state in ImageState), BatchState.PARTIAL.value)
DEFAULT_IMAGES_PER_BATCH: Final = 100
MAX_IMAGES_PER_BATCH: Final = 1000


def _status(text: str) -> str:
    if text not in STATUSES:
        raise ValueError(f"This status is unknown. Valid values: {', '.join(STATUSES)}.")
    return text


FILTERS: Final[dict[str, Callable[[str], Any]]] = {
    "store_name": query.text,
    "camera_id": query.text,
    "barcode": query.text,
    "status": _status,
    "label": query.text,
    "min_score": query.fraction,
    "tag": query.text,
    "since": query.timestamp,
    "until": query.timestamp,
}
PAGING: Final[dict[str, Callable[[str], Any]]] = {
    "page": query.integer(1, query.MAX_PAGE),
    **cursor_pages.PARAMETERS,
    "images_per_batch": query.integer(0, MAX_IMAGES_PER_BATCH),
}


def from_query(values: dict[str, Any]) -> Filters:
    """Return the filters among the query parameters that ``query.read`` returned. Paging parameters are ignored."""
    return Filters(**{name: values[name] for name in FILTERS if name in values})
