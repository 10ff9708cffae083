"""Images of stores that the credentials do not include."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import FieldError, Forbidden, Invalid, ShelfsightError
from tests.unit.web.json_uploads import GOOD, JSON, RELAXED, parse
from web.uploads.parsed_upload import ParsedUpload

STORES = frozenset({"a", "b"})
FOREIGN = GOOD | {"store_name": "c"}


def parse_items(tree: Any, *, lenient: bool = False) -> ParsedUpload:
    return parse(json.dumps(tree).encode(), lenient=lenient, stores=STORES)


def shown(errors: list[FieldError]) -> list[tuple[str, str]]:
    return [(error.pointer, error.code) for error in errors]


def test_names_are_compared_after_they_are_trimmed() -> None:
    assert [image.store_name for image in parse_items([GOOD, GOOD | {"store_name": " b\n"}]).images] == ["a", "b"]


@pytest.mark.parametrize("name", ["c", "A", "a b", "*", "а"])  # noqa: RUF001 -- the last one is Cyrillic
def test_one_foreign_store_refuses_the_upload(name: str) -> None:
    with pytest.raises(Forbidden) as refused:
        parse_items([GOOD, GOOD | {"store_name": name}])
    assert (refused.value.status, refused.value.code) == (403, "foreign_store")
    assert shown(refused.value.errors) == [("/1/store_name", "foreign_store")]
    assert f"`{name}`" in refused.value.detail


@pytest.mark.parametrize("other", [{"timestamp": "?"}, {"file": "?"}, {"file": ""}, {"camera_id": None}, {"extra": {"a": "x" * 5000}}, {"sha256": "0" * 64}])
def test_a_foreign_store_precedes_all_other_errors_of_images_and_options(other: dict[str, Any]) -> None:
    for items in ([GOOD | other, FOREIGN], [FOREIGN | other]):
        with pytest.raises(Forbidden) as refused:
            parse_items({"images": items, "detect": 1, "webhook_url": "x"})
        assert shown(refused.value.errors) == [(f"/images/{len(items) - 1}/store_name", "foreign_store")]


@pytest.mark.parametrize("name", ["", " ", 7, None, ["a"], {"$ne": "a"}, "c\0", "c" * 201])
def test_an_invalid_name_is_invalid_and_not_foreign(name: object) -> None:
    with pytest.raises(Invalid) as refused:
        parse_items([GOOD, GOOD | {"store_name": name}])
    assert [error.pointer for error in refused.value.errors] == ["/1/store_name"]


def test_a_long_list_of_foreign_images_is_counted_and_cut() -> None:
    with pytest.raises(Forbidden) as refused:
        parse_items([GOOD] * 3 + [FOREIGN] * 150)
    assert "150 of 153 images" in refused.value.detail
    assert len(refused.value.errors) == 100


def test_lenient_handling_rejects_the_foreign_images_alone() -> None:
    parsed = parse_items([GOOD, FOREIGN, FOREIGN | {"file": "?"}], lenient=True)
    assert [image.index for image in parsed.images] == [0]
    assert shown(parsed.rejected[1]) == [("/1/store_name", "foreign_store")]
    assert set(shown(parsed.rejected[2])) == {("/2/store_name", "foreign_store"), ("/2/file", "bad_base64")}
    with pytest.raises(Invalid) as refused:
        parse_items([FOREIGN, FOREIGN], lenient=True)
    assert (refused.value.status, [error.code for error in refused.value.errors]) == (422, ["foreign_store"] * 2)


def test_without_any_store_every_image_is_foreign() -> None:
    with pytest.raises(Forbidden):
        parse(json.dumps([GOOD]).encode(), stores=frozenset())


@RELAXED
@given(st.lists(st.sampled_from([GOOD, FOREIGN, GOOD | {"store_name": "b", "camera_id": ""}]) | JSON, min_size=1, max_size=6))
def test_no_image_of_a_foreign_store_is_accepted(items: list[Any]) -> None:
    try:
        images = parse_items(items, lenient=True).images
    except ShelfsightError:
        images = []
    assert all(image.store_name in STORES for image in images)
    valid = [index for index, item in enumerate(items) if item == GOOD]
    assert [image.index for image in images if image.index in valid] == (valid if images else [])
    if FOREIGN in items:
        with pytest.raises(Forbidden):
            parse_items(items)
