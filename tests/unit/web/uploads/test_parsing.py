"""Any body becomes images, or one domain error with pointers; nothing else is raised."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import BadRequest, MalformedJson
from tests.unit.web.json_uploads import GOOD, JSON, RELAXED, parse


@RELAXED
@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(body)


def test_a_string_is_one_value_whatever_it_contains() -> None:
    note = '"a", [l], {r}\\, ' * 150
    items = [{**GOOD, "note": note} for _ in range(300)]
    assert len(parse(json.dumps(items).encode()).images) == 300


@RELAXED
@given(JSON)
def test_any_json_but_a_valid_upload_is_refused_with_pointers(tree: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(json.dumps(tree).encode())
    assert not isinstance(caught.value, MalformedJson)
    assert caught.value.errors
    assert all(error.pointer == "" or error.pointer.startswith("/") for error in caught.value.errors)
