"""The filters that ``scripts/bench/search`` measures, each with the same condition as a plain MongoDB query."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations
from typing import Any, Final

from scripts.bench import seed_database, seed_image_fields
from shared.ledger.batch_images import VISIBLE
from shared.storage.mongo import Db, Document
from shared.storage.schema import ENDED_STATES

_HOUR: Final = timedelta(hours=1)
_EPOCH: Final = datetime(1970, 1, 1)

FOR_SORTS: Final = ("store_name: 1 in 18", "tag: 1 in 50", "min_sharpness: 1 in 1,000")
"""The names of the filters that are measured in each order."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter, or several that must all hold: the query parameters, and the condition for documents of ``images``."""

    name: str
    parameters: dict[str, str]
    condition: Document

    @property
    def query(self) -> Document:
        """The plain query for the images that the list shows."""
        return {"status": VISIBLE} | self.condition


ALL: Final = Filter("no filter", {}, {})


def create_filters(db: Db) -> list[Filter]:
    """Return filters for each parameter of the list, with values that many or few of the seeded images have.

    :param db: the seeded database. Values such as ids are those of its images.
    """
    first, last = (db.images.find_one(sort=[("_id", order)]) for order in (1, -1))
    copied = _find_copied(db)
    assert first is not None  # noqa: S101 -- the caller has seeded the database
    assert last is not None  # noqa: S101
    oldest, newest = first["timestamp"], last["timestamp"]
    length = newest - oldest
    return [
        _equal("store_name", seed_database.STORE, "half of the images"),
        _equal("store_name", seed_database.OTHER_STORES[0], "1 in 18"),
        _equal("camera_id", "cam-3", "1 in 8"),
        _equal("barcode", "4000000000007", "1 in 1,000"),
        _equal("status", "done", "nearly all"),
        _equal("status", "failed", "1 in 500"),
        _label(seed_database.LABELS[5], "1 in 7"),
        _label(seed_database.RARE_LABEL, "1 in 2,000"),
        _min_score(0.9, "half of the images"),
        _min_score(0.9999, "1 in 1,400"),
        _tag(seed_image_fields.LARGE_TAG, "1 in 10"),
        _tag(seed_image_fields.TAG, "1 in 50"),
        _tag(seed_image_fields.RARE_TAG, "1 in 1,000"),
        _times("since, nearly all", since=oldest + length / 100),
        _times("since, the last hour", since=newest - _HOUR),
        _times("until, nearly all", until=newest),
        _times("until, the first hundredth", until=oldest + length / 100),
        _times("since and until, an old hour", since=oldest + length / 10, until=oldest + length / 10 + _HOUR),
        _equal("batch_id", last["batch_id"], "32 images"),
        Filter("sha256: copies", {"sha256": copied["sha256"]}, {"sha256": copied["sha256"], "status": {"$in": ENDED_STATES}}),
        _equal("barcode_check", "match", "1 in 3"),
        _equal("barcode_check", "mismatch", "1 in 40"),
        Filter("untagged=true: 9 in 10", {"untagged": "true"}, {"tags": []}),
        Filter("annotated=true: 1 in 20", {"annotated": "true"}, {"annotated_at": {"$gt": _EPOCH}}),
        Filter("annotated=false: 19 in 20", {"annotated": "false"}, {"annotations": None}),
        _measure("sharpness", "$gte", 50, "half of the images"),
        _measure("sharpness", "$gte", 99.9, "1 in 1,000"),
        _measure("sharpness", "$lte", 0.1, "1 in 1,000"),
        _measure("brightness", "$gte", 0.5, "half of the images"),
        _measure("brightness", "$lte", 0.001, "1 in 1,000"),
    ]


def pairs(filters: Iterable[Filter]) -> list[Filter]:
    """Return all pairs of filters with different parameters, each as one filter."""
    return [combine(a, b) for a, b in combinations(filters, 2) if a.parameters.keys().isdisjoint(b.parameters)]


def combine(a: Filter, b: Filter) -> Filter:
    """Return the filter for images that meet both filters, which have different parameters."""
    parameters = a.parameters | b.parameters
    condition: Document = dict(a.condition)
    both: list[Document] = []
    for name, wanted in b.condition.items():
        present = condition.get(name)
        if name == "$or" and present is not None:
            condition |= _seen(parameters["label"], float(parameters["min_score"]))
        elif isinstance(present, dict) and isinstance(wanted, dict):
            condition[name] = _both_bounds(present, wanted)
        elif present is not None:
            both += [{name: condition.pop(name)}, {name: wanted}]
        else:
            condition[name] = wanted
    return Filter(f"{a.name}; {b.name}", parameters, condition | ({"$and": both} if both else {}))


def _both_bounds(first: Document, second: Document) -> Document:
    """Return one range for two of one field. Both can have a lower bound, because a range without one begins at 0."""
    lower = [bounds["$gte"] for bounds in (first, second) if "$gte" in bounds]
    return first | second | ({"$gte": max(lower)} if lower else {})


def _equal(field: str, value: str, share: str) -> Filter:
    return Filter(f"{field}: {share}", {field: value}, {field: value})


def _label(label: str, share: str) -> Filter:
    return Filter(f"label: {share}", {"label": label}, _seen(label, None))


def _min_score(score: float, share: str) -> Filter:
    return Filter(f"min_score: {share}", {"min_score": str(score)}, _seen(None, score))


def _seen(label: str | None, score: float | None) -> Document:
    """Return the condition for annotations, if an image has a list of them, or else for detections.

    An annotation has no score, and meets any. One detection must meet both conditions.
    """
    detected: Document = {} if label is None else {"detections.label": label}
    if score is not None:
        detected["detections"] = {"$elemMatch": ({} if label is None else {"label": label}) | {"score": {"$gte": score}}}
    annotated = {"annotations.label": {"$gt": ""} if label is None else label}
    return {"$or": [annotated, {"annotations": None} | detected]}


def _tag(name: str, share: str) -> Filter:
    return Filter(f"tag: {share}", {"tag": name}, {"tags.id": seed_image_fields.TAG_IDS[name]})


def _times(name: str, **bounds: datetime) -> Filter:
    operators = {"since": "$gte", "until": "$lte"}
    whole = {bound: time.replace(microsecond=0) for bound, time in bounds.items()}
    return Filter(
        name,
        {bound: f"{time.isoformat()}Z" for bound, time in whole.items()},
        {"timestamp": {operators[bound]: time for bound, time in whole.items()}},
    )


def _measure(field: str, operator: str, value: float, share: str) -> Filter:
    """A range without a lower bound begins at 0, because MongoDB then uses an index that has only the images with the field."""
    parameter = f"{'min' if operator == '$gte' else 'max'}_{field}"
    bounds = {operator: value} if operator == "$gte" else {"$gte": 0, operator: value}
    return Filter(f"{parameter}: {share}", {parameter: str(value)}, {f"quality.{field}": bounds})


def _find_copied(db: Db) -> Any:
    """Return an image of which there are exact copies: one of those that agree with another one in all four bands."""
    for image in db.images.find({"phash": {"$gt": ""}}, sort=[("_id", -1)]).limit(20_000):
        same = {"phash_bands": image["phash_bands"][0], "phash": image["phash"], "sha256": image["sha256"]}
        if db.images.count_documents(same, limit=2) == 2:
            return image
    raise RuntimeError("The newest 20,000 images have no exact copies.")
