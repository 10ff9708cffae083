"""The list of failed images: in order, limited to stores, and with a bounded search for those that meet a condition."""

import pytest

from shared.ledger import dead_letters, reprocessing
from shared.ledger.reprocessing import Options
from shared.storage.mongo import Db
from tests.integration.shared.ledger.test_bounded_reads import reads
from tests.integration.worker.jobs.reprocessing import fail_all, make_done
from tests.integration.worker.jobs.tagging import make_images


def make_failed(db: Db, count: int, store: str = "north", code: str = "corrupt") -> list[str]:
    make_images(db, count, store)
    return fail_all(db, code)


def read_all(db: Db, stores: frozenset[str] | None = None, code: str | None = None, limit: int = 4) -> tuple[list[str], int]:
    """Return the ids on all pages, and the number of pages."""
    found, after, pages = [], None, 0
    while pages == 0 or after is not None:
        page = dead_letters.list_page(db, stores, after, limit, code=code)
        assert len(page.images) <= limit
        assert page.after is None or after is None or page.after < after
        found += [image["_id"] for image in page.images]
        after, pages = page.after, pages + 1
    return found, pages


def test_failed_images_are_listed_newest_first(db: Db) -> None:
    first, _, second = make_failed(db, 5), make_done(db, 3), make_failed(db, 4)
    assert read_all(db) == ([*second[::-1], *first[::-1]], 3)
    assert read_all(db, limit=100)[1] == 1


def test_conditions_are_searched_in_bounded_steps(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    rare = make_failed(db, 2, "south", "truncated")
    for _ in range(3):
        make_failed(db, 9)
    rare += make_failed(db, 1, "south", "truncated")
    common = make_failed(db, 3)
    monkeypatch.setattr(dead_letters, "MAX_SEARCHED", 5)
    for found in (read_all(db, code="truncated"), read_all(db, frozenset({"south"})), read_all(db, frozenset({"south"}), "truncated")):
        assert found == (rare[::-1], 7)
    assert read_all(db, frozenset(), limit=2) == ([], 7)
    page = dead_letters.list_page(db, frozenset({"south"}), common[0], 5)
    assert [image["_id"] for image in page.images] == rare[:1:-1]
    commands, keys, documents = reads(db, lambda: dead_letters.list_page(db, None, common[0], 5, code="none"))
    assert commands == 2
    assert documents <= 5
    assert keys <= 5 + 5 + 4


def test_the_search_for_a_condition_returns_each_image_once_with_any_bound(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [name for number in range(4) for code in ("a", "b") for name in make_failed(db, number + 1, code=code) if code == "b"]
    for bound in range(1, 22):
        monkeypatch.setattr(dead_letters, "MAX_SEARCHED", bound)
        for limit in (1, 3, 50):
            assert read_all(db, code="b", limit=limit)[0] == wanted[::-1], (bound, limit)


def test_an_image_that_is_queued_again_or_keeps_an_old_result_is_not_listed(db: Db) -> None:
    failed, done = make_failed(db, 2), make_done(db, 1)
    reprocessing.reprocess_images(db, [failed[0], *done], {}, Options(), None)
    assert read_all(db)[0] == failed[1:]
    fail_all(db)
    assert read_all(db)[0] == failed[::-1]


def test_failures_are_counted_by_code_among_the_newest(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    make_failed(db, 3, code="truncated")
    make_failed(db, 2, "south")
    make_failed(db, 1, "south", "truncated")
    assert dead_letters.failures_by_code(db) == {"truncated": 4, "corrupt": 2}
    assert dead_letters.failures_by_code(db, frozenset({"south"})) == {"corrupt": 2, "truncated": 1}
    assert dead_letters.failures_by_code(db, frozenset()) == {}
    monkeypatch.setattr(dead_letters, "FAILURES_READ", 2)
    assert dead_letters.failures_by_code(db) == {"truncated": 1, "corrupt": 1}
