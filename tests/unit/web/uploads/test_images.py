"""Validation of the images of an upload: base64, metadata, and rejecting single images."""

import base64
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

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
    st.binary(min_size=1, max_size=300), st.sampled_from(["", "data:image/jpeg;base64,"]), st.sampled_from([0, 4, 76])
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
