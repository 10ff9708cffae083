"""Filters are stored in jobs, and read again as they were."""

from datetime import datetime
from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ledger.filters import Filters

_TEXT = st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text and text.isprintable())
_IDS = st.lists(st.text("0123456789abcdef", min_size=36, max_size=36), max_size=3).map(tuple)
_TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000))
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("store_name", "camera_id", "barcode", "status", "label", "batch_id", "sha256", "barcode_check"), _TEXT),
    **dict.fromkeys(("tag_ids", "untagged", "ids"), _IDS),
    **dict.fromkeys(("since", "until"), _TIMES),
    **dict.fromkeys(("min_score", "min_sharpness", "max_sharpness", "min_brightness", "max_brightness"), st.floats(0, 1)),
    "annotated": st.booleans(),
}


@given(st.fixed_dictionaries({}, optional=_FIELDS))
def test_filters_are_the_same_after_they_were_stored(values: dict[str, Any]) -> None:
    filters = Filters(**values)
    stored = bson.decode(bson.encode(filters.to_document()))
    assert stored.keys() == values.keys()
    assert Filters.from_document(stored) == filters


def test_without_conditions_nothing_is_stored() -> None:
    assert Filters().to_document() == {}
    assert Filters.from_document({}) == Filters()


@pytest.mark.parametrize(
    ("values", "excludes"),
    [
        ({}, False),
        ({"since": datetime(2026, 1, 1), "until": datetime(2026, 1, 1)}, False),
        ({"since": datetime(2026, 1, 2), "until": datetime(2026, 1, 1)}, True),
        ({"min_sharpness": 1.0, "max_brightness": 0.5}, False),
        ({"min_sharpness": 1.0, "max_sharpness": 0.5}, True),
        ({"min_brightness": 1.0, "max_brightness": 0.5}, True),
        ({"tag_ids": ()}, True),
        ({"ids": ()}, True),
        ({"untagged": ()}, False),
        ({"tag_ids": ("a",), "untagged": ()}, True),
        ({"tag_ids": ("a",), "untagged": ("b",)}, True),
        ({"tag_ids": ("a", "b"), "untagged": ("b",)}, False),  # "b" was deleted after the first read
    ],
)
def test_conditions_that_no_image_can_meet_are_recognised(values: dict[str, Any], excludes: bool) -> None:  # noqa: FBT001
    assert Filters(**values).exclude_all == excludes
