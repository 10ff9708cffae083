"""The filters in a JSON object are those of a list, and each wrong one is named."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from flask import Flask

from shared.errors import Invalid
from shared.ledger.filters import Filters
from web import image_filters
from web.http import query
from web.services import current_services


@pytest.fixture(autouse=True)
def _in_app(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


def read(value: Any) -> Filters:
    return image_filters.read_object(current_services().db, value)


def test_an_object_has_the_filters_of_a_list_as_texts_numbers_and_truth_values() -> None:
    assert read(
        {"store_name": " north ", "camera_id": 7, "status": "done", "min_score": 0.5, "since": 0, "until": "2026-01-01T00:00:00Z", "annotated": False,
         "sha256": "AB" * 32, "batch_id": "0" * 32, "barcode_check": "match", "min_sharpness": 1, "max_sharpness": 1e5, "min_brightness": 1e-7}
    ) == Filters(
        store_name="north", camera_id="7", status="done", min_score=0.5, since=datetime(1970, 1, 1), until=datetime(2026, 1, 1), annotated=False,
        sha256="ab" * 32, batch_id="0" * 32, barcode_check="match", min_sharpness=1.0, max_sharpness=1e5, min_brightness=1e-7,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], ["/filters wrong_type"]),
        (None, ["/filters wrong_type"]),
        ({}, ["/filters empty"]),
        ({"label": ""}, ["/filters/label empty"]),
        ({"label": " \n"}, ["/filters/label empty"]),
        ({"label": 5}, ["/filters/label wrong_type"]),
        ({"label": None}, ["/filters/label wrong_type"]),
        ({"label": {"$ne": "x"}}, ["/filters/label wrong_type"]),
        ({"label": "x" * 201}, ["/filters/label bad_value"]),
        ({"label": "a\0"}, ["/filters/label bad_value"]),
        ({"camera_id": True}, ["/filters/camera_id wrong_type"]),
        ({"camera_id": 10**5000}, ["/filters/camera_id bad_value"]),
        ({"min_score": "0.5"}, ["/filters/min_score wrong_type"]),
        ({"min_score": 1.5}, ["/filters/min_score bad_value"]),
        ({"min_score": -1}, ["/filters/min_score bad_value"]),
        ({"min_score": True}, ["/filters/min_score wrong_type"]),
        ({"max_sharpness": 1e300}, ["/filters/max_sharpness bad_value"]),
        ({"since": 1e30}, ["/filters/since bad_value"]),
        ({"since": "yesterday"}, ["/filters/since bad_value"]),
        ({"annotated": "true"}, ["/filters/annotated wrong_type"]),
        ({"untagged": False}, ["/filters/untagged bad_value"]),
        ({"status": "partial"}, ["/filters/status bad_value"]),
        ({"batch_id": "x"}, ["/filters/batch_id bad_value"]),
        ({"duplicate_of": "0" * 32}, ["/filters/duplicate_of bad_value"]),
        ({"sha256": "x"}, ["/filters/sha256 bad_value"]),
        ({"barcode_check": "maybe"}, ["/filters/barcode_check bad_value"]),
        ({"a/b": 1, "status": "x", "label": "ok"}, ["/filters/a~1b unknown_field", "/filters/status bad_value"]),
        ({"held": True}, ["/filters/held not_supported"]),
    ],
    ids=map(str, range(28)),
)
def test_each_wrong_filter_is_named(value: Any, expected: list[str]) -> None:
    with pytest.raises(Invalid) as raised:
        read(value)
    assert [f"{error.pointer} {error.code}" for error in raised.value.errors] == expected


def test_an_unknown_filter_is_answered_with_the_known_ones() -> None:
    with pytest.raises(Invalid) as raised:
        read({"colour": "red"})
    (error,) = raised.value.errors
    assert all(name in error.detail for name in image_filters.IMAGE_FILTERS)


def test_a_filter_for_held_images_is_not_supported() -> None:
    with pytest.raises(Invalid) as raised:
        read({"held": True})
    assert raised.value.code == "not_supported"


@pytest.mark.parametrize(("reader", "text"), [(query.boolean, "True"), (query.boolean, "1"), (query.number(5), "5.1"), (query.number(5), "nan"), (query.number(5), "-0")])
def test_a_truth_value_or_a_number_in_another_form_is_refused(reader: Any, text: str) -> None:
    with pytest.raises(ValueError, match="invalid; send"):
        reader(text)
