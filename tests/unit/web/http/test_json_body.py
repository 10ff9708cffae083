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
def test_one_value_above_the_limit_is_refused(tree: Any) -> None:
    def marks(value: Any) -> int:
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inner is None else max(1, len(inner)) + sum(map(marks, inner))

    body, count = json.dumps({"": tree}).encode(), marks({"": tree})
    parse_json(body, count)
    if count > 1:
        with pytest.raises(TooLarge):
            parse_json(body, count - 1)


def test_a_byte_order_mark_is_ignored() -> None:
    assert parse_json(b'\xef\xbb\xbf["\xef\xbb\xbf"]', 9) == ["\ufeff"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_json_in_another_unicode_encoding_is_refused_with_the_reason(encoding: str) -> None:
    with pytest.raises(MalformedJson, match="UTF-8"):
        parse_json('[{"store_name": "Café"}]'.encode(encoding), 9)


@pytest.mark.parametrize("body", [b'["' + b"," * 9, b'["\\', b'["a" "b,c,d,e" ",,,', b'["\\",,,,,"'])
def test_an_unterminated_string_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedJson):
        parse_json(body, 3)
