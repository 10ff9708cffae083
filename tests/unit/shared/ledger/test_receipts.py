"""The signature of a receipt: what makes it invalid, and what does not matter."""

import copy
import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.ledger import receipts

SECRET = bytes(range(32))
KEY_ID = "test-0123456789abcdef"
IMAGE = {"id": "0" * 36, "index": 0, "sha256": "a" * 64, "status": "done", "received_at": "2026-01-15T09:00:00.000Z", "finished_at": "2026-01-15T09:00:01.250Z"}
UNSIGNED: dict[str, Any] = {
    "batch_id": "0" * 32,
    "issued_at": "2026-01-15T09:00:02.000Z",
    "images": [IMAGE, IMAGE | {"index": 1, "id": "1" * 36, "status": "queued", "finished_at": None}],
    "balance": {"received": 2, "done": 1, "failed": 0, "cancelled": 0, "pending": 1, "deleted": 0},
}
RECEIPT = receipts.sign(UNSIGNED, KEY_ID, SECRET)
TEXT = json.dumps(RECEIPT)


def is_valid(text: str) -> bool:
    """Return what ``POST /receipts/verify`` finds out about an object."""
    try:
        parsed = receipts.parse(text.encode())
    except receipts.Ambiguous:
        return False
    return isinstance(parsed, dict) and receipts.is_valid(parsed, {KEY_ID: SECRET}.get)


def positions(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values in a value, and its own."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [found for key, member in inner for found in positions(member, (*path, key))]


def value_at(path: tuple[Any, ...]) -> Any:
    """Return the value at a path in the receipt."""
    found: Any = RECEIPT
    for key in path:
        found = found[key]
    return found


CONTAINERS = [path for path in positions(RECEIPT) if isinstance(value_at(path), dict | list)]
"""The paths of all objects and lists in the receipt."""


def shuffled(value: Any, draw: st.DrawFn) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(value[key], draw) for key in draw(st.permutations(sorted(value)))}
    return [shuffled(member, draw) for member in value] if isinstance(value, list) else value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def test_the_canonical_json_is_sorted_without_white_space_or_escapes() -> None:
    assert receipts.canonical_json({"b": [1, None], "a": {"é": "ü\u2028", "Z": "x"}}) == '{"a":{"Z":"x","é":"ü\u2028"},"b":[1,null]}'.encode()


@given(st.data())
def test_the_order_of_members_and_white_space_do_not_matter(data: st.DataObject) -> None:
    @st.composite
    def spellings(draw: st.DrawFn) -> str:
        return json.dumps(shuffled(RECEIPT, draw), indent=draw(st.none() | st.integers(0, 4)), ensure_ascii=draw(st.booleans()))

    assert is_valid(data.draw(spellings()))


@given(st.sampled_from(positions(RECEIPT)[1:]), JSON)
def test_a_value_that_is_replaced_makes_a_receipt_invalid(path: tuple[Any, ...], other: Any) -> None:
    edited = copy.deepcopy(RECEIPT)
    parent: Any = edited
    for key in path[:-1]:
        parent = parent[key]
    if json.dumps(other) == json.dumps(parent[path[-1]]):
        return
    parent[path[-1]] = other
    assert not is_valid(json.dumps(edited))


@given(st.sampled_from(positions(RECEIPT)[1:]))
def test_a_value_that_is_removed_makes_a_receipt_invalid(path: tuple[Any, ...]) -> None:
    edited = copy.deepcopy(RECEIPT)
    parent: Any = edited
    for key in path[:-1]:
        parent = parent[key]
    del parent[path[-1]]
    assert not is_valid(json.dumps(edited))


@given(st.sampled_from(CONTAINERS), st.text(min_size=1, max_size=8), JSON)
def test_a_member_that_is_added_makes_a_receipt_invalid(path: tuple[Any, ...], name: str, value: Any) -> None:
    edited = copy.deepcopy(RECEIPT)
    parent: Any = edited
    for key in path:
        parent = parent[key]
    if isinstance(parent, list):
        parent.append(value)
    else:
        assume(name not in parent)
        parent[name] = value
    assert not is_valid(json.dumps(edited))


def test_images_in_another_order_make_a_receipt_invalid() -> None:
    assert not is_valid(json.dumps(RECEIPT | {"images": RECEIPT["images"][::-1]}))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"received": 2', '"received": 2.0'), ('"received": 2', '"received": 2e0'), ('"received": 2', '"received": 20e-1'), ('"failed": 0', '"failed": -0'),
        ('"failed": 0', '"failed": "0"'), ('"failed": 0', '"failed": false'), ('"received": 2', f'"received": {"9" * 5000}'), ('"received": 2', '"received": NaN'),
        ('"received": 2', '"received": 2, "received": 2'), ('"received": 2', '"received": 1, "received": 2'), ('"batch_id"', '"issued_at": "x", "batch_id"'),
        ('"value": "', '"value": " '), ('"alg": "HMAC-SHA256"', '"alg": "none"'), ('"alg": "HMAC-SHA256"', '"alg": "hmac-sha256"'), (KEY_ID, "another-0123456789abcdef"),
        ('"done"', '"\\ud800"'),
    ],
)  # fmt: skip
def test_other_spellings_and_repeated_members_make_a_receipt_invalid(before: str, after: str) -> None:
    assert before in TEXT
    assert not is_valid(TEXT.replace(before, after, 1))


def test_a_signature_in_capitals_or_another_script_is_invalid() -> None:
    value = RECEIPT["signature"]["value"]
    assert not is_valid(TEXT.replace(value, value.upper()))
    assert not is_valid(TEXT.replace(value, value[:-1] + "\N{ARABIC-INDIC DIGIT ONE}"))


def test_a_receipt_of_another_key_is_invalid() -> None:
    assert not is_valid(json.dumps(receipts.sign(UNSIGNED, KEY_ID, bytes(32))))
