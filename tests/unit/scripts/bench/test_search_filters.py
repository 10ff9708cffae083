"""Pairs of filters: only of different parameters, and both conditions hold in the plain query."""

from datetime import UTC, datetime

from scripts.bench import search_filters
from scripts.bench.search_filters import Filter

_STORE = Filter("store", {"store_name": "s"}, {"store_name": "s"})
_OTHER_STORE = Filter("other store", {"store_name": "t"}, {"store_name": "t"})
_SINCE = Filter("since", {"since": "2026-01-01T00:00:00Z"}, {"timestamp": {"$gte": datetime(2026, 1, 1, tzinfo=UTC)}})
_UNTIL = Filter("until", {"until": "2026-01-02T00:00:00Z"}, {"timestamp": {"$lte": datetime(2026, 1, 2, tzinfo=UTC)}})
_TAG = Filter("tag", {"tag": "a"}, {"tags.id": "1"})
_TAG_OF_STORE = Filter("tags of a store", {"store": "s"}, {"tags.id": {"$in": ["1"]}})
_SHARP = search_filters._measure("sharpness", "$gte", 50, "")
_NOT_SHARPER = search_filters._measure("sharpness", "$lte", 60, "")
_FAILED = Filter("status", {"status": "failed"}, {"status": "failed"})


def test_pairs_have_different_parameters() -> None:
    names = [pair.parameters.keys() for pair in search_filters.pairs([_STORE, _OTHER_STORE, _TAG])]
    assert names == [{"store_name", "tag"}] * 2


def test_two_bounds_of_one_field_become_one_range() -> None:
    assert search_filters.combine(_SINCE, _UNTIL).condition == {
        "timestamp": _SINCE.condition["timestamp"] | _UNTIL.condition["timestamp"]
    }


def test_two_conditions_for_one_field_must_both_hold() -> None:
    both = {"$and": [_TAG.condition, _TAG_OF_STORE.condition]}
    assert search_filters.combine(_TAG, _TAG_OF_STORE).condition == both


def test_the_greater_of_two_lower_bounds_is_kept() -> None:
    for pair in ((_SHARP, _NOT_SHARPER), (_NOT_SHARPER, _SHARP)):
        assert search_filters.combine(*pair).condition == {"quality.sharpness": {"$gte": 50, "$lte": 60}}


def test_one_detection_must_have_the_label_and_the_score() -> None:
    both = search_filters.combine(search_filters._label("milk", ""), search_filters._min_score(0.5, ""))
    detection = {"detections.label": "milk", "detections": {"$elemMatch": {"label": "milk", "score": {"$gte": 0.5}}}}
    assert both.condition == {"$or": [{"annotations.label": "milk"}, {"annotations": None} | detection]}


def test_a_filter_of_the_state_replaces_the_condition_for_visible_images() -> None:
    assert search_filters.combine(_STORE, _FAILED).query == {"store_name": "s", "status": "failed"}
