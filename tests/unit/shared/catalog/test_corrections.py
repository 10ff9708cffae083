"""Which corrections an image keeps: the last ones, within a number and a size; all of them are counted."""

from datetime import datetime
from typing import Any

import bson
from hypothesis import given
from hypothesis import strategies as st

from shared.catalog import corrections
from shared.catalog.corrections import MAX_BYTES, MAX_CORRECTIONS
from shared.storage.schema import MAX_BARCODE_LENGTH, MAX_NAME_LENGTH

TIMESTAMP = datetime(2026, 1, 1)
names = st.builds(lambda text, times: (text * times)[:MAX_NAME_LENGTH], st.sampled_from(["a", "ä", "店", "🛒", "$x."]), st.integers(1, MAX_NAME_LENGTH))
changes = st.dictionaries(st.sampled_from(["store_name", "camera_id", "barcode", "extra", "timestamp"]), names, min_size=1)


def image_of(**fields: Any) -> dict[str, Any]:
    return {"timestamp": TIMESTAMP, "store_name": "north", "camera_id": "1", "barcode": None, "extra": {"a": "x" * 4000}} | fields


@given(st.lists(changes, max_size=30))
def test_the_last_corrections_are_kept_within_the_limits_and_all_are_counted(requests: list[dict[str, Any]]) -> None:
    image, expected = image_of(), []
    for new in requests:
        expected += [{"field": name} | ({} if name == "extra" else {"from": image[name], "to": new[name]}) for name in sorted(new)]
        image |= corrections.of_fields(image, new, "ann") | new
    stored = image.get("corrections", {"entries": [], "count": 0})
    kept = [{name: value for name, value in entry.items() if name not in {"at", "by"}} for entry in stored["entries"]]
    assert kept == expected[len(expected) - len(kept) :]
    assert stored["count"] == len(expected)
    assert len(kept) <= MAX_CORRECTIONS
    assert sum(len(bson.encode(entry)) for entry in stored["entries"]) <= MAX_BYTES
    assert len(kept) >= min(len(expected), 3)


def test_the_largest_change_of_one_request_is_kept_whole() -> None:
    longest = "🛒" * MAX_NAME_LENGTH
    image = image_of(store_name=longest, camera_id=longest, barcode="🛒" * MAX_BARCODE_LENGTH)
    new = {"store_name": longest[:-1], "camera_id": longest[:-1], "barcode": longest[: MAX_BARCODE_LENGTH - 1], "timestamp": TIMESTAMP, "extra": {}}
    recorded = corrections.of_fields(image, new, "u" * 64)["corrections"]
    assert [entry["field"] for entry in recorded["entries"]] == sorted(new)
    assert recorded["count"] == 5


def test_many_removed_tags_are_counted_and_the_first_are_named() -> None:
    ids = [f"{number:032x}" for number in range(100)]
    (entry,) = corrections.of_removed_tags(image_of(), ids, None)["corrections"]["entries"]
    assert (entry["removed"], entry["number"], entry["by"]) == (ids[:20], 100, None)
