"""Counts of events: bounded in number, stored soon at first and rarely later, and none is lost between two takes."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.accounts.audit_events import WINDOWS, Event
from shared.accounts.event_counts import EventCounts

START = datetime(2026, 1, 1, 12)
SECOND = timedelta(seconds=1)


def refusal(client: int, code: str = "unauthorized") -> Event:
    return Event("request.refused", address=f"10.{client >> 16}.{client >> 8 & 255}.{client & 255}", details={"code": code})


def test_a_hundred_clients_with_ten_thousand_refusals_are_a_hundred_counts() -> None:
    counts = EventCounts()
    for number in range(10_000):
        counts.add(refusal(number % 100), START)
    taken = counts.take(START)
    assert len(taken) == len({count.id for count in taken}) == 100
    assert {count.times for count in taken} == {100}
    assert counts.take(START + timedelta(hours=1)) == []


def test_the_events_of_too_many_subjects_are_counted_as_one_that_names_nobody() -> None:
    counts = EventCounts()
    most = WINDOWS["request.refused"].max_subjects
    for number in range(3 * most):
        counts.add(refusal(number), START)
    *_, others = taken = counts.take(START)
    assert len(taken) == most + 1
    assert (others.event, others.times) == (Event("request.refused", details={"others": True}), 2 * most)
    for number in range(3 * most):  # the next second of the same minute
        counts.add(refusal(number), START + SECOND)
    assert {count.id for count in counts.take(START + SECOND, everything=True)} == {count.id for count in taken}


def test_refusals_leave_room_for_failed_sign_ins() -> None:
    counts = EventCounts()
    for number in range(2 * WINDOWS["request.refused"].max_subjects):
        counts.add(refusal(number), START)
    counts.add(Event("sign_in.failed", address="192.0.2.1", username="ada"), START)
    assert [count.event.username for count in counts.take(START) if count.event.type == "sign_in.failed"] == ["ada"]


def test_the_first_event_is_due_at_once_and_further_ones_later_or_at_the_end_of_the_window() -> None:
    counts = EventCounts()
    due = {}
    for second in range(120):
        now = START + second * SECOND
        if second < 25:
            counts.add(refusal(1), now)
        for count in counts.take(now):
            due[second] = (count.times, count.first_at, count.last_at)
    assert due == {
        0: (1, START, START),
        10: (10, START + SECOND, START + 10 * SECOND),
        20: (10, START + 11 * SECOND, START + 20 * SECOND),
        30: (4, START + 21 * SECOND, START + 24 * SECOND),
    }


def test_what_is_not_due_yet_is_taken_when_the_window_is_over() -> None:
    counts = EventCounts()
    for second in (50, 51):
        counts.add(refusal(1), START + second * SECOND)
        counts.take(START + second * SECOND)
    assert counts.take(START + 59 * SECOND) == []
    assert [count.times for count in counts.take(START + 60 * SECOND)] == [1]


def test_a_key_that_is_used_every_minute_is_stored_every_ten_minutes() -> None:
    counts = EventCounts()
    taken = []
    for minute in range(24 * 60):
        now = datetime(2026, 1, 1) + timedelta(minutes=minute)
        counts.add(Event("api_key.used", actor="key:1", key_id="1", address=f"10.0.0.{minute % 20}"), now)
        taken += counts.take(now)
    taken += counts.take(datetime(2026, 1, 2))
    assert sum(count.times for count in taken) == 24 * 60
    assert len(taken) <= 145
    assert len({count.id for count in taken}) == 1
    assert len(taken[-1].clients) == 8
    assert (taken[0].event.address, taken[-1].last_address) == ("10.0.0.0", "10.0.0.19")


@given(
    steps=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["a", "b"]), st.integers(0, 40), st.booleans()), max_size=60)
)
def test_every_event_is_taken_exactly_once(steps: list[tuple[int, str, int, bool]]) -> None:
    counts, now, taken = EventCounts(), START, []
    for client, code, seconds, is_taken in steps:
        now += seconds * SECOND
        counts.add(refusal(client, code), now)
        taken += counts.take(now) if is_taken else []
    taken += counts.take(now, everything=True)
    assert sum(count.times for count in taken) == len(steps)
    assert counts.take(now + timedelta(days=2), everything=True) == []
    assert counts._windows == {}


def test_the_memory_of_past_windows_is_released() -> None:
    counts = EventCounts()
    for minute in range(1000):
        now = START + timedelta(minutes=minute)
        counts.add(refusal(minute), now)
        counts.take(now)
    assert len(counts._windows) == 1
