"""The events of a timeline: their order, their limits, and what is missing or hidden."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.catalog.corrections import MAX_CORRECTIONS
from shared.catalog.image_timelines import build
from shared.catalog.tag_rules import MAX_TAGS_PER_IMAGE
from shared.ledger.timelines import MAX_ATTEMPTS, MAX_REQUESTS

START = datetime(2026, 1, 1)
times = st.integers(0, 10_000).map(lambda seconds: START + timedelta(seconds=seconds))
names = st.none() | st.sampled_from(["ann", "key:1"])
attempts = st.fixed_dictionaries(
    {"worker": st.just("w"), "fence": st.integers(1, 50), "ended": times, "outcome": st.sampled_from(["done", "failed", "released", "expired"])},
    optional={"begun": st.none() | times, "code": st.none() | st.just("disk_full"), "steps": st.just({"load_ms": 1.0})},
)
requests = st.fixed_dictionaries(
    {"kind": st.sampled_from(["reprocess", "cancel"]), "at": times, "by": names, "generation": st.just(1)}, optional={"options": st.just({"detect": False})}
)
corrections = st.one_of(
    st.fixed_dictionaries({"at": times, "by": names, "field": st.just("store_name"), "from": st.just("north"), "to": st.just("south")}),
    st.fixed_dictionaries({"at": times, "by": names, "field": st.just("extra")}),
    st.fixed_dictionaries({"at": times, "by": names, "field": st.just("annotations"), "boxes": st.none() | st.integers(0, 9)}),
    st.fixed_dictionaries({"at": times, "by": names, "field": st.just("tags"), "removed": st.just(["a", "gone"]), "number": st.just(2)}),
)
tags = st.fixed_dictionaries({"id": st.sampled_from(["a", "gone"]), "at": times, "by": names})


def show_names(applied: Sequence[dict[str, Any]]) -> list[str]:
    return [f"<{entry['id']}>" for entry in applied if entry["id"] != "gone"]


def image_of(**fields: Any) -> dict[str, Any]:
    work = {"fence": 0, "owner": None, "not_before": datetime(1970, 1, 1)} | fields.pop("work", {})
    return {"_id": "i", "batch_id": "b", "status": "queued", "created_at": START, "finished_at": None, "error": None, "tags": [], "work": work} | fields


@st.composite
def images(draw: st.DrawFn) -> dict[str, Any]:
    held = draw(st.lists(attempts, max_size=MAX_ATTEMPTS))
    wanted, corrected = draw(st.lists(requests, max_size=MAX_REQUESTS)), draw(st.lists(corrections, max_size=MAX_CORRECTIONS))
    status = draw(st.sampled_from(["queued", "processing", "done", "failed", "cancelled"]))
    dropped = draw(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)))
    image = image_of(
        status=status,
        history={"attempts": held, "requests": wanted, "requested": len(wanted) + dropped[1]},
        corrections={"entries": corrected, "count": len(corrected) + dropped[2]},
        tags=draw(st.lists(tags, max_size=MAX_TAGS_PER_IMAGE)),
        work={"fence": len(held) + dropped[0] + (status == "processing"), "owner": "w2"} | draw(st.fixed_dictionaries({}, optional={"claimed_at": st.none() | times})),
    )
    return image | {"dropped": sum(dropped)}


@given(images())
def test_the_events_are_in_order_within_limits_and_what_was_dropped_is_counted(image: dict[str, Any]) -> None:
    timeline = build(image, show_names, None)
    moments = [event["at"] for event in timeline.events]
    assert moments == sorted(moments)
    kinds = [event["type"] for event in timeline.events]
    assert kinds.count("attempt") == len(image["history"]["attempts"]) + (image["status"] == "processing")
    assert kinds.count("tagged") == sum(entry["id"] != "gone" for entry in image["tags"])
    assert kinds.count("reprocess_requested") + kinds.count("cancelled") == len(image["history"]["requests"])
    assert len(kinds) <= 2 + MAX_ATTEMPTS + MAX_REQUESTS + MAX_CORRECTIONS + MAX_TAGS_PER_IMAGE
    assert timeline.omitted == image["dropped"]
    running = [event for event in timeline.events if event["type"] == "attempt" and event["outcome"] is None]
    assert len(running) == (image["status"] == "processing")
    assert (timeline.next_attempt_at is None) == (image["status"] != "queued")


def test_a_new_image_was_received_and_can_be_processed_since() -> None:
    timeline = build(image_of(created_by="ann"), show_names, None)
    assert timeline.events == [{"at": START, "type": "received", "by": "ann", "batch_id": "b"}]
    assert (timeline.next_attempt_at, timeline.omitted) == (START, 0)


def test_the_next_attempt_is_that_after_the_delay_or_after_the_image_was_queued_again() -> None:
    later = START + timedelta(days=1)
    assert build(image_of(work={"not_before": later}), show_names, None).next_attempt_at == later
    assert build(image_of(work={"queued_at": later}), show_names, None).next_attempt_at == later


def test_an_image_of_the_version_before_shows_the_attempt_that_made_its_result() -> None:
    error = {"code": "corrupt", "detail": "Broken."}
    image = image_of(status="failed", error=error, finished_at=START, work={"fence": 3, "finisher": "old"})
    timeline = build(image, show_names, None)
    (event,) = (event for event in timeline.events if event["type"] == "attempt")
    assert (event["number"], event["worker"], event["outcome"], event["code"], event["begun_at"], event["ended_at"]) == (3, "old", "failed", "corrupt", None, START)
    assert timeline.omitted == 2


def test_names_of_stores_that_the_reader_may_not_see_are_left_out() -> None:
    moved = {"at": START, "by": "ann", "field": "store_name", "from": "north", "to": "south"}
    image = image_of(corrections={"entries": [moved], "count": 1})
    (event,) = (event for event in build(image, show_names, frozenset({"south"})).events if event["type"] == "corrected")
    assert (event["from"], event["to"]) == (None, "south")
