"""JSON bodies: the number of values is limited, strings count once, malformed JSON is refused."""

import json
from typing import Any

import pytest
from hypothesis import given

from shared.errors import MalformedJson, TooLarge
from tests.unit.web.json_uploads import JSON, RELAXED
from web.http.json_body import parse_json


@RELAXED
@given(JSON)
def test_a_value_more_than_may_be_is_one_too_many(tree: Any) -> None:
    def marks(value: Any) -> int:
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inner is None else max(1, len(inner)) + sum(map(marks, inner))

    body, most = json.dumps({"": tree}).encode(), marks({"": tree})
    parse_json(body, most)
    if most > 1:
        with pytest.raises(TooLarge):
            parse_json(body, most - 1)


@pytest.mark.parametrize("body", [b'["' + b"," * 9, b'["\\', b'["a" "b,c,d,e" ",,,', b'["\\",,,,,"'])
def test_text_without_an_end_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedJson):
        parse_json(body, 3)
