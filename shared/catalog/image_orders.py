"""The orders of a list of images, and the cursors that name a position in such a list.

In each order, images with the same value are in the order of their ids, in the same direction. An id begins with the time
at which the image was accepted, so the order of the ids is that of ``created_at``. A cursor contains the name of its order,
and the value and the id of the last image before the position. So a page is found along an index, however far it is.
"""

import base64
import dataclasses
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson
from pymongo import ASCENDING, DESCENDING

from shared.errors import FieldError, Invalid
from shared.ids import batch_of, is_image_id
from shared.storage.schema import EPOCH

NEWEST: Final = "newest"
"""The cursor for the first page of every order."""
_OPERATORS: Final = {ASCENDING: "$gt", DESCENDING: "$lt"}


class Position(NamedTuple):
    """The place of an image in a list: the value by which the list is sorted (None in the order of the ids), and its id."""

    value: datetime | float | None
    image_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """An order of a list of images. ``name`` is the value of ``sort``, and ``field`` is None for the order of the ids.

    ``condition`` is what an image must meet to be in the list, so that a partial index can be used.
    """

    name: str
    field: str | None
    direction: int
    condition: dict[str, Any] = dataclasses.field(default_factory=dict)

    def position_of(self, row: Mapping[str, Any]) -> Position:
        """Return the position of an image whose document contains the id and the field of the order."""
        if self.field is None:
            return Position(None, row["_id"])
        value: Any = row
        for step in self.field.split("."):
            value = value[step]
        return Position(value, row["_id"])

    def ranges_after(self, after: Position | None, *, is_rare: bool) -> list[dict[str, Any]]:
        """Return conditions that together choose what follows a position. What the first one chooses comes first.

        Two ranges, rather than one condition with both, can each be read along an index without entries in vain, also if
        very many images have the same value.

        :param is_rare: whether images in the order of the ids are sorted by ``batch_id`` and ``_id``.
        """
        if after is None:
            return [{}]
        operator = _OPERATORS[self.direction]
        beyond = {"_id": {operator: after.image_id}}
        if self.field is not None:
            return [{self.field: after.value} | beyond, {self.field: {operator: after.value}}]
        return [beyond | {"batch_id": {f"{operator}e": batch_of(after.image_id)}} if is_rare else beyond]


_BY_SHARPNESS: Final = {"quality.sharpness": {"$gte": 0}}
ORDERS: Final = {
    order.name: order
    for order in (
        Order("-created_at", None, DESCENDING),
        Order("created_at", None, ASCENDING),
        Order("-timestamp", "timestamp", DESCENDING),
        Order("timestamp", "timestamp", ASCENDING),
        Order("-sharpness", "quality.sharpness", DESCENDING, _BY_SHARPNESS),
        Order("sharpness", "quality.sharpness", ASCENDING, _BY_SHARPNESS),
        Order("-score", "top_score", DESCENDING, {"top_score": {"$gte": 0}}),
    )
}
"""The orders by their names. The first is the default. A list in an order by sharpness or by score has only images with one."""
DEFAULT_ORDER: Final = next(iter(ORDERS))


def encode_cursor(order: Order, position: Position) -> str:
    """Return the cursor for what follows a position."""
    value = position.value
    if isinstance(value, datetime):
        value = (value - EPOCH) // timedelta(milliseconds=1)
    return base64.urlsafe_b64encode(orjson.dumps([order.name, value, position.image_id])).rstrip(b"=").decode()


def decode_cursor(order: Order, cursor: str) -> Position | None:
    """Return the position that a cursor names; None for the cursor ``NEWEST``.

    :raises Invalid: when ``encode_cursor`` did not make the cursor, or made it for another order (``bad_cursor``).
    """
    if cursor == NEWEST:
        return None
    position = _decode(order, cursor)
    if position is None:
        detail = f"Unknown cursor for sort={order.name}; send the next_cursor of a page with the same sort, or start with cursor={NEWEST}."
        raise Invalid(detail, code="bad_cursor", errors=[FieldError("/cursor", "bad_value", detail)])
    return position


def _decode(order: Order, cursor: str) -> Position | None:
    try:
        name, value, image_id = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if name == order.name and isinstance(image_id, str) and is_image_id(image_id):
            return Position(_decode_value(order, value), image_id)
    except (ValueError, TypeError, OverflowError):
        return None
    return None


def _decode_value(order: Order, value: Any) -> datetime | float | None:
    """Return the value of a position.

    :raises ValueError: when the value is not one of this order.
    :raises OverflowError: when the value is a time that Python cannot represent.
    """
    if order.field is None and value is None:
        return None
    if order.field is None or isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("not a value of this order")
    return EPOCH + timedelta(milliseconds=value) if order.field == "timestamp" else float(value)
