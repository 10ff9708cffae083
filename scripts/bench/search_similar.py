"""Measure how long it takes to find the images that look like one image, beside a scan of all perceptual hashes."""

import random
from collections.abc import Sequence
from typing import Final

from scripts.bench.extent import Extent
from scripts.bench.report import Row, Target
from scripts.bench.search_lists import Lists
from scripts.bench.timing import median, seconds
from shared.catalog import near_duplicates
from shared.storage.mongo import Db

_AT_MOST_MS: Final = Target(at_most=50)
_PER_PAGE: Final = 20
_DARK: Final = "0" * 16


def measure(lists: Lists, extent: Extent) -> list[Row]:
    """Measure requests for images with near-duplicates, for others, and for equally dark ones; and the search without HTTP.

    The baseline of the medians is one scan that reads all perceptual hashes and compares them.
    """
    number = extent.choose(full=300, quick=150, smoke=5)
    chosen = _choose(lists, number)
    scan_ms = 1000 * seconds(lambda: _scan(lists.db, chosen["with near-duplicates"][0]))
    rows = []
    for name, ids in chosen.items():
        lists.get_similar(ids[0])  # opens what the first request opens
        times = [1000 * lists.get_similar(image_id)[0] for image_id in ids]
        middle = median(times)
        rows += [
            Row(f"similar images, {name}: median", middle, "ms", target=_AT_MOST_MS),
            Row(f"similar images, {name}: 95th percentile", _percentile(times, 0.95), "ms", target=_AT_MOST_MS),
            Row(f"similar images, {name}: median beside a scan of all hashes", middle, "ms", scan_ms, middle / scan_ms),
        ]
    every = [image_id for ids in chosen.values() for image_id in ids]
    times = [1000 * seconds(lambda name=name: _find(lists.db, name)) for name in every]  # type: ignore[misc]  # mypy infers no type for the default value
    rows.append(Row("similar images, all of these without HTTP: median", median(times), "ms"))
    return rows


def _choose(lists: Lists, number: int) -> dict[str, list[str]]:
    """Return random images by whether others look like them: up to ``number`` with near-duplicates and without, and dark ones."""
    sample = [row["_id"] for row in lists.db.images.aggregate([{"$sample": {"size": 20 * number}}, {"$project": {"_id": 1}}])]
    random.Random(11).shuffle(sample)
    chosen: dict[str, list[str]] = {"with near-duplicates": [], "without near-duplicates": []}
    for image_id in sample:
        has_some = bool(lists.get_similar(image_id)[1]["images"])
        kind = chosen["with near-duplicates" if has_some else "without near-duplicates"]
        if len(kind) < number:
            kind.append(image_id)
        if all(len(ids) == number for ids in chosen.values()):
            break
    dark = [row["_id"] for row in lists.db.images.find({"phash": _DARK}, {"_id": 1}).limit(max(3, number // 10))]
    return {name: ids for name, ids in (chosen | {"equally dark": dark}).items() if ids}


def _find(db: Db, image_id: str) -> None:
    near_duplicates.find_page(db, image_id, None, per_page=_PER_PAGE)


def _scan(db: Db, image_id: str) -> list[str]:
    """Return the images within the default distance, by a comparison with every hash."""
    image = db.images.find_one({"_id": image_id}, {"phash": 1})
    assert image is not None  # noqa: S101 -- the id is that of a seeded image
    own = int(image["phash"], 16)
    rows = db.images.find({"phash": {"$gt": ""}}, {"phash": 1}, hint="phash")
    return [
        row["_id"] for row in rows if (int(row["phash"], 16) ^ own).bit_count() <= near_duplicates.DEFAULT_DISTANCE
    ]


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
