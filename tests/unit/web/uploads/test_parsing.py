"""Parsing: whatever comes in, the answer is images or a domain error with pointers; never anything else."""

import base64
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import BadRequest, MalformedJson, TooLarge
from shared.settings import Limits
from web.uploads.parsing import load, parse_json
from web.uploads.schemas import parse_time

JPEG = b"\xff\xd8\xff\xe0" + b"x" * 40
GOOD = {"file": base64.b64encode(JPEG).decode(), "timestamp": 1767225600, "store_name": " a ", "camera_id": 3}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.sampled_from([*GOOD, "extra", "barcode"]), inner, max_size=5),
    max_leaves=12,
)
RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def parse(body: bytes, *, lenient: bool = False) -> Any:
    return parse_json(load(body, Limits()), Limits(), lenient=lenient)


@RELAXED
@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(body)


def test_text_is_one_value_whatever_it_holds() -> None:
    note = '"a", [l], {r}\\, ' * 150
    items = [{**GOOD, "note": note} for _ in range(300)]
    assert len(parse(json.dumps(items).encode()).good) == 300


@RELAXED
@given(JSON)
def test_a_value_more_than_may_be_is_one_too_many(tree: Any) -> None:
    def marks(value: Any) -> int:
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inner is None else max(1, len(inner)) + sum(map(marks, inner))

    body, most = json.dumps({"": tree}).encode(), marks({"": tree})
    load(body, Limits(max_values=most))
    if most > 1:
        with pytest.raises(TooLarge):
            load(body, Limits(max_values=most - 1))


@pytest.mark.parametrize("body", [b'["' + b"," * 9, b'["\\', b'["a" "b,c,d,e" ",,,', b'["\\",,,,,"'])
def test_text_without_an_end_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedJson):
        load(body, Limits(max_values=3))


@RELAXED
@given(JSON)
def test_any_json_but_a_good_one_is_refused_with_pointers(tree: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(json.dumps(tree).encode())
    assert not isinstance(caught.value, MalformedJson)
    assert caught.value.errors
    assert all(wrong.pointer == "" or wrong.pointer.startswith("/") for wrong in caught.value.errors)


@RELAXED
@given(st.lists(st.one_of(st.just(GOOD), JSON), min_size=1, max_size=6))
def test_lenient_accounts_for_every_image_once(items: list[Any]) -> None:
    if GOOD not in items:
        items = [*items, GOOD]
    parsed = parse(json.dumps(items).encode(), lenient=True)
    assert sorted([image.index for image in parsed.good] + list(parsed.bad)) == list(range(len(items)))
    for index, errors in parsed.bad.items():
        assert errors
        assert all(wrong.pointer.split("/")[1] == str(index) for wrong in errors)


@RELAXED
@given(st.binary(min_size=1, max_size=300), st.sampled_from(["", "data:image/jpeg;base64,"]), st.sampled_from([0, 4, 76]))
def test_base64_comes_back_byte_for_byte(tail: bytes, prefix: str, width: int) -> None:
    data = b"\xff\xd8\xff" + tail
    text = base64.b64encode(data).decode()
    if width:
        text = "\r\n".join(text[at : at + width] for at in range(0, len(text), width))
    parsed = parse(json.dumps([{**GOOD, "file": prefix + text}]).encode())
    assert parsed.good[0].data == data


@RELAXED
@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2999, 1, 1)))
def test_times_are_kept_to_the_millisecond_in_utc(moment: datetime) -> None:
    kept = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    assert parse_time(moment.isoformat(timespec="microseconds")) == kept
    assert parse_time(moment.isoformat(timespec="microseconds") + "Z") == kept
    assert parse_time(moment.isoformat(timespec="microseconds") + "+00:00") == kept
    assert parse_time(moment.isoformat(timespec="microseconds") + "-02:30") == kept + timedelta(hours=2, minutes=30)


def test_a_leap_second_is_the_next_second() -> None:
    assert parse_time("2016-12-31T23:59:60.250Z") == datetime(2017, 1, 1, 0, 0, 0, 250_000)


def test_text_is_trimmed_unknown_keys_are_kept_and_an_object_named_extra_is_merged() -> None:
    one = {**GOOD, "id": "mine", "extra": {"aisle": 4}, "status": "odd"}
    image = parse(json.dumps([one]).encode()).good[0]
    assert (image.store_name, image.camera_id) == ("a", "3")
    assert image.extra == {"aisle": 4, "id": "mine", "status": "odd"}


def test_the_fingerprint_is_of_what_was_understood() -> None:
    plain = parse(json.dumps([GOOD]).encode()).fingerprint(["0" * 64], lenient=False)
    spaced = parse(json.dumps([GOOD], indent=3).encode()).fingerprint(["0" * 64], lenient=False)
    other = parse(json.dumps([{**GOOD, "camera_id": 4}]).encode()).fingerprint(["0" * 64], lenient=False)
    assert plain == spaced != other
