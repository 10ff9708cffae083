"""The results of inspections: when they are stored, used and removed."""

import pytest

from shared.inspections import results
from shared.inspections.recipes import Augment, Describe, Dream
from shared.storage.mongo import Db
from tests.integration.shared.inspections.requesting import SHA, set_last_use
from tests.support.ledger import validate_documents

pytestmark = pytest.mark.slow


def test_the_id_of_a_result_is_determined_by_image_recipe_and_model() -> None:
    ids = [
        results.result_id(SHA, Describe(), {"name": "a"}),
        results.result_id("b" * 64, Describe(), {"name": "a"}),
        results.result_id(SHA, Describe(), {"name": "b"}),
        results.result_id(SHA, Describe(Dream()), {"name": "a"}),
        results.result_id(SHA, Augment(("rotate",)), None),
    ]
    assert len(set(ids)) == len(ids)
    assert ids[0] == results.result_id(SHA, Describe(), {"name": "a"})


def test_a_result_that_is_being_removed_is_not_returned_and_can_be_stored_again_afterwards(db: Db) -> None:
    assert results.store(db, "1" * 32, {"width": 1}, "a" * 32, 10) == "a" * 32
    assert results.store(db, "1" * 32, {"width": 2}, "b" * 32, 10) == "a" * 32  # another run stored it first
    db.inspection_results.update_one({"_id": "1" * 32}, {"$set": {"going": True}})
    assert results.use(db, "1" * 32) is None
    assert results.store(db, "1" * 32, {"width": 1}, "b" * 32, 10) is None
    results.delete_marked(db, "1" * 32)
    assert results.store(db, "1" * 32, {"width": 1}, "c" * 32, 10) == "c" * 32
    found = results.use(db, "1" * 32)
    assert found is not None
    assert (found["fields"], found["folder"]) == ({"width": 1}, "c" * 32)
    validate_documents(db)


def test_results_that_are_old_or_too_many_are_removed_the_least_recently_used_first(db: Db) -> None:
    for number in range(5):
        results.store(db, f"{number}" * 32, {}, f"{number}a" * 16, 100)
        set_last_use(db, f"{number}" * 32, 500 - 100 * number)
    assert results.mark_expired(db, 1000, 1000, 10) == []
    assert set(results.mark_expired(db, 350, 1000, 10)) == {(digit * 32, f"{digit}a" * 16) for digit in "01"}
    assert {result for result, _ in results.mark_expired(db, 1000, 150, 10)} == {digit * 32 for digit in "0123"}
    assert results.use(db, "4" * 32) is not None


def test_a_use_is_recorded_once_a_minute(db: Db) -> None:
    results.store(db, "1" * 32, {}, "a" * 32, 4)
    for seconds_ago, recorded in ((30, False), (90, True)):
        set_last_use(db, "1" * 32, seconds_ago)
        results.use(db, "1" * 32)
        (row,) = db.inspection_results.aggregate([{"$project": {"age": {"$subtract": ["$$NOW", "$used_at"]}}}])
        assert (row["age"] < 20_000) is recorded
