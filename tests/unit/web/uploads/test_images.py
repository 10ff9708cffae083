"""Validation of the images of an upload: base64, metadata, and rejecting single images."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Invalid
from tests.unit.web.json_uploads import GOOD, JSON, RELAXED, parse


@RELAXED
@given(st.lists(st.one_of(st.just(GOOD), JSON), min_size=1, max_size=6))
def test_lenient_accepts_or_rejects_every_image_once(items: list[Any]) -> None:
    if GOOD not in items:
        items = [*items, GOOD]
    parsed = parse(json.dumps(items).encode(), lenient=True)
    assert sorted([image.index for image in parsed.images] + list(parsed.rejected)) == list(range(len(items)))
    for index, errors in parsed.rejected.items():
        assert errors
        assert all(error.pointer.split("/")[1] == str(index) for error in errors)


@RELAXED
@given(
    st.binary(min_size=1, max_size=300),
    st.sampled_from(["", "data:image/jpeg;base64,", " " * 31 + "\n\tdata:;base64,", "\r\n" * 500 + "DATA:image/png;base64, "]),
    st.sampled_from([0, 4, 76]),
)
def test_base64_is_decoded_byte_for_byte(tail: bytes, prefix: str, width: int) -> None:
    data = b"\xff\xd8\xff" + tail
    text = base64.b64encode(data).decode()
    if width:
        text = "\r\n".join(text[at : at + width] for at in range(0, len(text), width))
    parsed = parse(json.dumps([{**GOOD, "file": prefix + text}]).encode())
    assert parsed.images[0].data == data


def test_text_is_trimmed_unknown_keys_are_stored_and_an_object_named_extra_is_merged() -> None:
    item = {**GOOD, "id": "mine", "extra": {"aisle": 4}, "status": "odd"}
    image = parse(json.dumps([item]).encode()).images[0]
    assert (image.store_name, image.camera_id) == ("a", "3")
    assert image.extra == {"aisle": 4, "id": "mine", "status": "odd"}


@pytest.mark.parametrize(
    "file",
    [
        "_9j_4AAQSkZJRg==",  # the URL-safe alphabet
        "/9j/4AAQSkZJRg",  # no padding
        "/9j/4AAQ!kZJRg==",
        "\u00a0/9j/4AAQSkZJRg==",  # white space that is not ASCII
        "data:image/jpeg;base64",
        " " * 100_000,
    ],
)
def test_text_that_is_not_base64_is_refused(file: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(json.dumps([{**GOOD, "file": file}]).encode())
    assert [(error.pointer, error.code) for error in refused.value.errors] == [("/0/file", "empty_file" if file.isspace() else "bad_base64")]


@pytest.mark.parametrize("extra", [{"$ref": "a", "$id": 1}, {"a": [{"$ref": "a", "$id": 1}]}, {"a\0": 1}, {"": {"\0": 1}}])
def test_extra_keys_that_mongodb_does_not_return_unchanged_are_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        parse(json.dumps([{**GOOD, "extra": extra}]).encode())
    assert [error.code for error in refused.value.errors] == ["bad_extra"]
