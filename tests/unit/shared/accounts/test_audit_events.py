"""Events of the security log: their ids sort by time, and their texts are short and contain no secrets."""

from datetime import datetime, timedelta
from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.accounts.audit_events import (
    EVENT_TYPES,
    WINDOWS,
    Event,
    count_id,
    is_event_id,
    largest_event_id,
    new_event_id,
    smallest_event_id,
)

TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1))
TEXTS = st.text(st.characters(), max_size=300)
ADDRESSES = st.none() | st.ip_addresses().map(str) | TEXTS
KEY = f"sfs_{'a1' * 8}_{'Zz9' * 14}x0123abcd"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


@given(earlier=TIMES, later=TIMES)
def test_ids_sort_by_time_and_lie_between_the_smallest_and_the_largest_of_their_time(earlier: datetime, later: datetime) -> None:
    earlier, later = min(earlier, later), max(earlier, later)
    if later - earlier >= timedelta(milliseconds=1):
        assert largest_event_id(earlier) < smallest_event_id(later)
    assert smallest_event_id(earlier) <= new_event_id(earlier) <= largest_event_id(earlier)


def test_events_at_the_same_time_have_different_ids() -> None:
    ids = {new_event_id(datetime(2026, 1, 1)) for _ in range(1000)}
    assert len(ids) == 1000
    assert all(map(is_event_id, ids))


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "0" * 32 + "\n", '{"$gt": ""}'])
def test_other_texts_are_no_ids(text: str) -> None:
    assert not is_event_id(text)


@given(at=TIMES)
def test_a_window_contains_the_times_from_its_start_to_the_next_start(at: datetime) -> None:
    for window in WINDOWS.values():
        start = window.start(at)
        assert start <= at < start + window.length
        assert window.start(start) == start


def test_the_count_of_a_subject_has_the_same_id_in_all_processes_and_no_other_subject_has_it() -> None:
    start = datetime(2026, 1, 1)
    ids = [
        count_id(event.type, event.subject(), window_start)
        for event in (
            Event("request.refused", address="192.0.2.1", details={"code": "unauthorized"}),
            Event("request.refused", address="192.0.2.2", details={"code": "unauthorized"}),
            Event("request.refused", address="192.0.2.1", details={"code": "missing_scope"}),
            Event("request.refused", actor="user:1", address="192.0.2.1", details={"code": "missing_scope"}),
            Event("sign_in.failed", address="192.0.2.1", username="ada"),
            Event("sign_in.failed", address="192.0.2.1", username="bob"),
            Event("sign_in.failed", address="192.0.2.1", target="user:1"),
        )
        for window_start in (start, start + timedelta(minutes=1))
    ]
    assert len(set(ids)) == len(ids) == 14
    assert all(map(is_event_id, ids))
    moved = Event("request.refused", actor="user:1", address="198.51.100.7", request_id="r", details={"code": "missing_scope"})
    assert count_id(moved.type, moved.subject(), start) == ids[6]


def test_the_clients_of_a_64_network_are_one_subject_until_they_sign_in() -> None:
    first, second, other = (Event("request.refused", address=f"2001:db8:0:{part}") for part in ("1::1", "1:2::1", "2::1"))
    assert first.subject() == second.subject() != other.subject()


def test_keys_and_tokens_are_removed_from_every_text() -> None:
    texts = {"username": KEY, "request_id": TOKEN, "target": f"a {KEY} b", "key_id": TOKEN, "address": KEY}
    event = Event("user.changed", actor=TOKEN, account=KEY, details={"host": KEY, "names": [TOKEN, f"x.{KEY}"]}, **texts)
    shown = str(event.members())
    assert "[secret]" in shown
    for secret in (KEY, KEY[25:], TOKEN, TOKEN.rpartition(".")[2]):
        assert secret not in shown


def test_the_id_of_a_key_and_ordinary_names_are_kept() -> None:
    for text in (f"sfs_{'a1' * 8}", "key:a1b2", "eyJane", "user:eyJacob.smith", "sfs_", "d15fa0c3-71b4"):
        assert Event("user.changed", target=text).members() == {"target": text}


@given(texts=st.lists(TEXTS, min_size=5, max_size=5), address=ADDRESSES, details=st.dictionaries(st.sampled_from("abcdefghij"), TEXTS | st.booleans() | st.none() | st.lists(TEXTS, max_size=60), max_size=5))
def test_any_event_can_be_stored_and_has_short_texts(texts: list[str], address: str | None, details: dict[str, Any]) -> None:
    actor, username, key_id, request_id, target = texts
    members = Event("user.changed", actor, actor, username, key_id, address, request_id, target, details).members()
    stored = bson.decode(bson.encode(members))
    assert stored == members
    flat = [value for value in stored.values() if isinstance(value, str)]
    for value in stored.get("details", {}).values():
        flat += value if isinstance(value, list) else [value] if isinstance(value, str) else []
    assert all(len(text) <= 200 for text in flat)


def test_details_are_limited_in_number() -> None:
    details = Event("user.changed", details={"old": [str(number) for number in range(1000)]} | {f"d{number}": "" for number in range(100)}).members()["details"]
    assert len(details) == 20
    assert details["old"][49:] == ["49", "(950 more)"]


def test_every_type_has_two_parts() -> None:
    assert all(event_type.count(".") == 1 for event_type in EVENT_TYPES)
