"""No list of images scans the collection: each filter, each pair of them and each order is read along an index.

The profiler of MongoDB records the plan with which each command was executed.
"""

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import combinations
from typing import Any, Final

import pytest

from shared.allowed_stores import AllowedStores
from shared.catalog.image_lists import images_after, page_of_images, read_images
from shared.catalog.image_orders import NEWEST, ORDERS
from shared.ledger.filters import Filters
from shared.storage.mongo import Db, Document
from shared.storage.schema import RARE_STATES
from tests.support.databases import Databases
from tests.support.random_images import STORES, filter_values, insert_images

_PROFILE_BYTES: Final = 256 * 1024 * 1024
_READERS: Final[dict[str, AllowedStores]] = {
    "all": None,
    "one": frozenset("a"),
    "three": frozenset(STORES),
    "250": frozenset([*STORES, *(f"store {number}" for number in range(247))]),
}
_ORDERED: Final = ("camera_id", "barcode", "label", "tag_ids", "batch_id", "sha256", "barcode_check", "untagged", "ids", "status")
"""The filters with an index in the order of the ids. Of the states, ``failed`` has one; of ``annotated``, true."""

_SORTS: Final = ("-created_at", "-timestamp", "sharpness", "-score")
_OF_RESULTS: Final = ("label", "barcode_check", "min_sharpness", "max_sharpness", "min_brightness", "max_brightness")
_FEW_KEYS: Final = 40
"""The number of entries of indexes that a page of three images may read."""

Stored = tuple[Db, dict[str, list[Any]]]


@pytest.fixture(scope="module")
def stored(databases: Databases) -> Iterator[Stored]:
    """Database with about 200 images, and values for the filters. The tests only read it."""
    with databases.connected() as db:
        yield db, filter_values(insert_images(db, 4, 60))


def commands_of(db: Db, call: Callable[[], Any]) -> list[Document]:
    """Return the profiler's document of each command of a call that reads images."""
    db.create_collection("system.profile", capped=True, size=_PROFILE_BYTES)
    db.command("profile", 2)
    try:
        call()
    finally:
        db.command("profile", 0)
    rows = list(db["system.profile"].find({"ns": f"{db.name}.images", "op": {"$in": ["query", "command"]}}))
    db["system.profile"].drop()
    return rows


def plans_of(db: Db, call: Callable[[], Any]) -> list[tuple[Document, set[str]]]:
    """Return each command of a call that reads images, with the stages of the plan with which it was executed."""
    return [
        (row["command"], set(re.findall("[A-Z]{3,}", row["planSummary"])) | stages(row.get("execStats", {})) | explained(db, row["command"]))
        for row in commands_of(db, call)
    ]


def explained(db: Db, command: Document) -> set[str]:
    """Return the stages of the plans of an aggregation, of which the profiler records only a summary."""
    if "aggregate" not in command:
        return set()
    explained = {name: command[name] for name in ("aggregate", "pipeline", "cursor", "hint") if name in command}
    return set().union(*(stages(plan) for plan in winning_plans(db.command("explain", explained, verbosity="queryPlanner"))))


def winning_plans(explanation: Any) -> Iterator[Document]:
    """Yield the plans that MongoDB has chosen for an aggregation and its ``$unionWith`` stages."""
    if isinstance(explanation, list):
        for one in explanation:
            yield from winning_plans(one)
    elif isinstance(explanation, dict):
        for name, value in explanation.items():
            if name == "winningPlan":
                yield value.get("queryPlan", value)
            elif name not in ("command", "rejectedPlans"):
                yield from winning_plans(value)


def stages(plan: Document) -> set[str]:
    """Return the names of all stages of a plan."""
    children = [plan[name] for name in ("inputStage", "outerStage", "innerStage", "thenStage", "elseStage") if name in plan]
    found = {str(plan.get("stage"))}
    for child in (*children, *plan.get("inputStages", ())):
        found |= stages(child)
    return found


def indexes_of(plan: Document) -> set[str]:
    """Return the names of the indexes of a plan."""
    children = (*(plan[name] for name in ("inputStage",) if name in plan), *plan.get("inputStages", ()))
    return set().union(*map(indexes_of, children), {plan["indexName"]} if "indexName" in plan else set())


def read_lists(db: Db, filters: Filters, stores: AllowedStores, sort: str) -> None:
    """Read a list by page, from its beginning by cursor, and from the middle by cursor."""
    page = page_of_images(db, filters, stores, sort, 1, 3)
    images_after(db, filters, stores, sort, NEWEST, 3)
    if page.next_cursor is not None:
        images_after(db, filters, stores, sort, page.next_cursor, 3)


def refuse_scans(db: Db, call: Callable[[], Any]) -> None:
    plans = plans_of(db, call)
    assert plans
    assert [command for command, found in plans if "COLLSCAN" in found] == []


@pytest.mark.parametrize("stores", _READERS.values(), ids=_READERS)
@pytest.mark.parametrize("sort", ORDERS)
def test_a_list_with_one_filter_or_none_scans_no_collection(stored: Stored, stores: AllowedStores, sort: str) -> None:
    db, values = stored

    def read_all() -> None:
        read_lists(db, Filters(), stores, sort)
        for name, choices in values.items():
            for value in choices:
                read_lists(db, Filters(**{name: value}), stores, sort)

    refuse_scans(db, read_all)


@pytest.mark.slow
@pytest.mark.parametrize("reader", range(len(_READERS)), ids=_READERS)
@pytest.mark.parametrize("order", range(len(_SORTS)), ids=_SORTS)
def test_a_list_with_two_filters_scans_no_collection(stored: Stored, reader: int, order: int) -> None:
    """Each test reads the first values of all pairs of filters, and a share of the pairs of all values; together, they read all."""
    db, values = stored
    stores, sort = list(_READERS.values())[reader], _SORTS[order]
    share = pairs_of(values)[reader * len(_SORTS) + order :: len(_READERS) * len(_SORTS)]

    def read_all() -> None:
        for first, second in combinations(values, 2):
            page_of_images(db, Filters(**{first: values[first][0], second: values[second][0]}), stores, sort, 1, 3)
        for fields in share:
            page_of_images(db, Filters(**fields), stores, sort, 1, 3)

    refuse_scans(db, read_all)


def test_a_page_reads_few_entries_of_indexes_except_with_pairs_that_are_known_to_exclude_each_other(databases: Databases) -> None:
    """The database has so many images that reading all of them, or all images with one of two filters, exceeds the limit."""
    with databases.connected() as db:
        values = filter_values(insert_images(db, 4, 400))
        singles = [{name: value} for name, choices in values.items() for value in choices]
        read: list[tuple[int, dict[str, Any]]] = []
        for fields in [{}, *singles, *pairs_of(values)[::4]]:
            rows = commands_of(db, lambda fields=fields: images_after(db, Filters(**fields), None, "-created_at", NEWEST, 3))  # type: ignore[misc]
            read.append((sum(row["keysExamined"] for row in rows), fields))
    assert [(keys, fields) for keys, fields in read if keys > _FEW_KEYS and not may_read_many(fields)] == []
    assert any(keys > _FEW_KEYS for keys, _ in read)  # the limit distinguishes the pairs that read many


def pairs_of(values: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Return all pairs of values of two filters, always in the same order."""
    return [{first: one, second: other} for first, second in combinations(values, 2) for one in values[first] for other in values[second]]


def may_read_many(fields: dict[str, Any]) -> bool:
    """Return whether a list with these filters may read many entries of an index that the filters exclude.

    - ``sha256`` with another filter: images that are queued or being processed are in no index of checksums. So of these, all
      that the other filter does not exclude are read.
    - A state that nearly no image with the other filter has: only images that are done have a result.

    ``docs/api.md`` names further cases, which these images do not have: values of filters without an index (``min_score``,
    ``annotated=false``, ``status=done``) that few images meet, two filters that hardly any image meets together, and long
    ranges in another order than their own.
    """
    return ("sha256" in fields and len(fields) > 1) or (fields.get("status") in RARE_STATES and not fields.keys().isdisjoint(_OF_RESULTS))


@pytest.mark.parametrize("sort", ["-created_at", "created_at"])
def test_a_filter_with_an_index_of_its_own_is_read_in_the_order_of_the_ids(stored: Stored, sort: str) -> None:
    db, values = stored
    filters = [Filters(**{name: value}) for name in _ORDERED for value in values[name] if value not in {"done", ()} or name == "untagged"]
    filters += [Filters(annotated=True), Filters(store_name="a"), Filters()]
    for chosen in filters:
        plans = plans_of(db, lambda chosen=chosen: images_after(db, chosen, None, sort, NEWEST, 3))  # type: ignore[misc]
        assert plans, chosen
        for command, found in plans:
            assert "SORT" not in found, command


@pytest.mark.parametrize(
    ("fields", "sort"),
    [*(({}, sort) for sort in ORDERS), ({"label": "apple"}, "-created_at"), ({"label": "apple"}, "created_at"), ({"camera_id": "cam 1"}, "-created_at"), ({"untagged": ("deleted",)}, "-created_at")],
    ids=str,
)  # fmt: skip
def test_a_page_far_down_the_list_is_read_without_the_pages_before_it(stored: Stored, fields: dict[str, Any], sort: str) -> None:
    db, _ = stored
    cursor: str | None = NEWEST
    for _ in range(12):
        assert cursor is not None
        cursor = images_after(db, Filters(**fields), None, sort, cursor, 3).next_cursor
    assert cursor is not None
    last: str = cursor
    rows = commands_of(db, lambda: images_after(db, Filters(**fields), None, sort, last, 3))
    assert len(rows) == 1
    assert 0 < sum(row["keysExamined"] for row in rows) <= 25  # 4 rows of each range, and those that do not match


@pytest.mark.parametrize("sort", ["-created_at", "created_at"])
def test_images_with_a_checksum_are_found_by_one_command_with_the_indexes_of_their_states(stored: Stored, sort: str) -> None:
    db, values = stored
    (row,) = commands_of(db, lambda: images_after(db, Filters(sha256=values["sha256"][0]), None, sort, NEWEST, 3))
    command = {name: row["command"][name] for name in ("aggregate", "pipeline", "cursor")}
    plans = list(winning_plans(db.command("explain", command, verbosity="queryPlanner")))
    assert [indexes_of(plan) for plan in plans] == [{"rare_states"}, {"rare_states"}, {"sha256_1__id_-1"}]


@pytest.mark.parametrize("sort", ORDERS)
def test_the_first_page_and_one_after_a_cursor_are_read_by_one_command_each(stored: Stored, sort: str) -> None:
    db, values = stored
    for fields in ({}, *({name: choices[0]} for name, choices in values.items())):
        cursor = images_after(db, Filters(**fields), None, sort, NEWEST, 3).next_cursor
        for after in (NEWEST, cursor or NEWEST):

            def read(fields: dict[str, Any] = fields, after: str = after) -> None:
                page = images_after(db, Filters(**fields), None, sort, after, 3)
                assert sum(map(len, read_images(db, page, None))) == len(page.positions)

            assert len(commands_of(db, read)) == 1, fields


@pytest.mark.parametrize(
    "fields",
    [
        {"tag_ids": ("one",), "untagged": ("deleted",)}, {"tag_ids": ("one",), "untagged": ()}, {"tag_ids": ()}, {"ids": ()}, {"min_sharpness": 2.0, "max_sharpness": 1.0},
        {"min_brightness": 0.2, "max_brightness": 0.1}, {"since": datetime(2026, 1, 2), "until": datetime(2026, 1, 1)},
    ],
    ids=",".join,
)  # fmt: skip
def test_conditions_that_contradict_each_other_are_answered_without_reading_images(stored: Stored, fields: dict[str, Any]) -> None:
    db, _ = stored

    def read() -> None:
        for page in (page_of_images(db, Filters(**fields), None, "-created_at", 1, 3), images_after(db, Filters(**fields), None, "-score", NEWEST, 3)):
            assert list(read_images(db, page, None)) == []

    assert commands_of(db, read) == []
