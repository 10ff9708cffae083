"""The end of an update, when no process of the release before runs any more, also after a return to that release."""

from datetime import timedelta

import pytest

from shared import failpoints
from shared.catalog.image_lists import page_of_images
from shared.errors import Conflict
from shared.ids import batch_of
from shared.ledger import (
    cancellation,
    claims,
    closing,
    reprocessing,
    results,
)
from shared.ledger.filters import Filters
from shared.ledger.reprocessing import Options
from shared.storage.indexes import create_indexes
from shared.storage.migrations import late_results, late_shown, runner, update_end
from shared.storage.migrations.run import Progress
from shared.storage.mongo import Db
from shared.storage.schema import DOCUMENTS
from shared.storage.schema.superseded import SUPERSEDED, SUPERSEDED_COLLECTIONS
from tests.integration.shared.storage.old_release import (
    RELEASE,
    finish_again_as_old_code,
    finish_as_old_code,
    insert_copies,
    return_to_old_code,
)
from tests.support.ledger import (
    commit_new_batch,
    failed_results,
    process_all,
    successful_results,
    utc_now,
    validate_documents,
)


def _best(db: Db) -> set[str]:
    """Return the batches of the images that have the highest score of these tests, as a list by score has them."""
    page = page_of_images(db, Filters(min_score=0.75), None, "-score", 1, 100)
    return {batch_of(position.image_id) for position in page.positions}


def test_images_that_old_workers_finish_during_and_after_the_migration_are_completed_when_these_have_ended(old: Db) -> None:
    create_indexes(old)
    process_all(old)
    waiting = commit_new_batch(old, 2)  # the migration visits it before it has a result
    late: list[str] = []

    def finish_between_ranges(progress: Progress) -> None:
        if progress.step == "m0002_top_score: images" and not late:
            late.append(commit_new_batch(old, 2))
            for batch_id in (waiting, *late):
                finish_as_old_code(old, batch_id)

    runner.migrate(old, finish_between_ranges)
    late.append(commit_new_batch(old, 2))
    finish_as_old_code(old, late[-1])
    assert not _best(old) & {waiting, *late}
    assert runner.read_status(old).up_to_date
    running = commit_new_batch(old, 2)
    assert runner.finish_update(old).completed == 6
    assert {waiting, *late} <= _best(old)
    assert runner.finish_update(old).completed == 0

    return_to_old_code(old)
    finish_as_old_code(old, running)
    old.images.delete_many({"batch_id": {"$lt": waiting}})
    runner.migrate(old)
    assert runner.finish_update(old).completed == 2
    assert running in _best(old)
    validate_documents(old)


@pytest.mark.slow
def test_the_end_of_an_update_visits_only_images_that_had_no_result_before(old: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    insert_copies(old, utc_now() - timedelta(days=1))
    old.images.delete_many({"status": {"$in": ["queued", "processing"]}})
    runner.migrate(old)
    batch_id = commit_new_batch(old, 5)
    process_all(old)
    monkeypatch.setattr(late_results, "CHUNK", 2)
    visited: list[int] = []
    for _ in range(2):
        return_to_old_code(old)
        runner.migrate(old)
        runner.finish_update(old, lambda progress: visited.append(progress.done) if "during the update" in progress.step else None)
    assert visited == [2, 4, 5] * 2
    assert old.images.count_documents({"_id": {"$gte": batch_id}}) == 5


def test_the_indexes_of_older_versions_that_are_not_used_any_more_are_kept_and_named(old: Db) -> None:
    runner.migrate(old)
    declared = {(document._meta["collection"], index.document["name"]) for document in DOCUMENTS for index in document.indexes}
    kept = {(name, index) for name in RELEASE.keys() - SUPERSEDED_COLLECTIONS for index in old[name].index_information() if index != "_id_"}
    superseded = {f"{name}.{index}" for name, index in kept - declared}
    assert "images.unfinished_or_bad" in superseded
    assert runner.read_status(old).superseded_indexes.keys() == superseded
    assert superseded == {f"{name}.{index}" for name, indexes in SUPERSEDED.items() for index in indexes}
    replacements = {(name, purpose.rpartition("replaced by ")[2]) for name, indexes in SUPERSEDED.items() for purpose in indexes.values()}
    assert replacements <= declared


def test_an_update_of_a_database_with_data_of_the_release_before_is_finished_by_hand(old: Db) -> None:
    assert not update_end.is_update_finished(old)
    runner.migrate(old)
    assert runner.read_status(old).up_to_date
    assert not update_end.is_update_finished(old)
    assert runner.migrate(old) == []
    steps: list[Progress] = []
    finished = runner.finish_update(old, steps.append)
    assert update_end.is_update_finished(old)
    superseded = {f"{name}.{index}" for name, indexes in SUPERSEDED.items() for index in indexes}
    assert set(finished.dropped) == superseded | SUPERSEDED_COLLECTIONS
    dropping = [progress for progress in steps if progress.step.startswith("dropping")]
    assert [(progress.done, progress.total) for progress in dropping] == [(number, len(superseded)) for number in range(len(superseded))]
    status = runner.read_status(old)
    assert (status.up_to_date, status.superseded_indexes, status.update_finished) == (True, {}, True)
    assert not SUPERSEDED_COLLECTIONS & set(old.list_collection_names())
    declared = {(document._meta["collection"], index.document["name"]) for document in DOCUMENTS for index in document.indexes}
    built = {(name, index) for name, _ in declared for index in old[name].index_information() if index != "_id_"}
    assert built == declared


@pytest.mark.slow
def test_the_end_of_an_update_that_is_interrupted_after_any_index_is_repeated(old: Db) -> None:
    runner.migrate(old)
    total = len(runner.read_status(old).superseded_indexes)
    for left in range(total - 1, -1, -1):
        failpoints.install(_interrupt)
        try:
            with pytest.raises(InterruptedError):
                runner.finish_update(old)
        finally:
            failpoints.install(None)
        assert len(runner.read_status(old).superseded_indexes) == left
        assert not update_end.is_update_finished(old)
    assert runner.finish_update(old).dropped == ("turns",)
    assert update_end.is_update_finished(old)
    assert runner.read_status(old).holder is None


def _interrupt(name: str) -> None:
    if name == "migration.index-dropped":
        raise InterruptedError


def test_an_update_after_a_return_to_the_release_before_has_to_be_finished_again(old: Db) -> None:
    runner.migrate(old)
    runner.finish_update(old)
    return_to_old_code(old)
    assert not update_end.is_update_finished(old)  # also before ``migrate``, while processes of both versions can be running
    status = runner.read_status(old)
    assert (status.up_to_date, status.update_finished, status.returned, status.pending) == (False, False, True, ())
    assert runner.migrate(old) == []
    status = runner.read_status(old)
    assert (status.up_to_date, status.returned) == (True, False)
    assert not update_end.is_update_finished(old)
    assert "images.claimable" in runner.finish_update(old).dropped
    assert update_end.is_update_finished(old)


def test_images_are_not_processed_again_while_an_old_process_can_be_running_after_a_return(old: Db) -> None:
    runner.migrate(old)
    runner.finish_update(old)
    batch_id = commit_new_batch(old, 1)
    process_all(old)
    old.command("createIndexes", "images", indexes=[{"name": "claimable", "key": {"store_name": 1, "_id": 1}, "partialFilterExpression": {"status": "queued"}}])
    with pytest.raises(Conflict) as caught:
        _process_again(old, batch_id)
    assert caught.value.code == "update_unfinished"
    assert runner.finish_update(old).dropped == ("images.claimable",)
    _process_again(old, batch_id)


def _process_again(db: Db, batch_id: str) -> None:
    assert reprocessing.reprocess(db, batch_id, {}, Options(), None).queued


def _read_shown(db: Db, batch_id: str) -> list[tuple[str, dict[str, int] | None, int]]:
    """Return, for each image of a batch, its state, ``shown``, and the fence of its last attempt."""
    images = db.images.find({"batch_id": batch_id}).sort("index", 1)
    return [(image["status"], image.get("shown"), image["work"]["fence"]) for image in images]


def test_after_a_return_the_images_that_old_workers_have_processed_again_show_their_last_result(old: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_shown, "CHUNK", 2)
    monkeypatch.setattr(late_shown, "_BATCHES", 1)
    old.images.update_many({"status": {"$in": ["queued", "processing"]}}, {"$set": {"status": "failed"}})
    runner.migrate(old)
    runner.finish_update(old)
    names = ("by old", "twice by old", "failed by old", "failed by new", "cancelled", "released by old, then cancelled", "once")
    batches = {name: commit_new_batch(old, 2) for name in names}
    claim = claims.claim(old, "worker", 32, 60)
    results.finish(old, "worker", successful_results(claim, detections=[{"label": "milk", "score": 0.5, "box": [0, 0, 1, 1]}], top_score=0.5))
    closing.close_batches(old, batches.values())

    _process_again(old, batches["failed by new"])
    results.finish(old, "worker", failed_results(claims.claim(old, "worker", 32, 60)))
    _process_again(old, batches["cancelled"])
    claims.release(old, "worker", claims.claim(old, "worker", 32, 60).leases, "environment")
    cancellation.cancel(old, batches["cancelled"], None)
    _process_again(old, batches["twice by old"])
    process_all(old)
    for name in ("by old", "twice by old", "failed by old"):
        _process_again(old, batches[name])
        finish_again_as_old_code(old, batches[name], fail=name == "failed by old")
    _process_again(old, batches["released by old, then cancelled"])
    claims.release(old, "worker", claims.claim(old, "worker", 32, 60).leases, "environment")
    old.images.update_many({"batch_id": batches["released by old, then cancelled"]}, {"$pop": {"history.attempts": 1}})
    cancellation.cancel(old, batches["released by old, then cancelled"], None)
    return_to_old_code(old)
    runner.migrate(old)
    unchanged = {name: _read_shown(old, batches[name]) for name in names if "by old" not in name or "then" in name}
    visited: list[int] = []
    assert runner.finish_update(old, lambda progress: visited.append(progress.done) if "batches" in progress.step else None).completed == 6

    assert _read_shown(old, batches["by old"]) == [("done", {"fence": 2}, 2)] * 2
    assert _read_shown(old, batches["twice by old"]) == [("done", {"fence": 3}, 3)] * 2
    assert _read_shown(old, batches["failed by old"]) == [("failed", None, 2)] * 2
    assert {name: _read_shown(old, batches[name]) for name in unchanged} == unchanged
    assert [(state, (shown or {})["fence"], fence) for state, shown, fence in unchanged["failed by new"]] == [("done", 1, 2)] * 2
    assert old.images.count_documents({"batch_id": {"$in": [batches["by old"], batches["twice by old"]]}, "top_score": {"$exists": True}}) == 0
    assert visited[-1] == old.batches.count_documents({})
    assert len(visited) > 3
    validate_documents(old)
    return_to_old_code(old)
    runner.migrate(old)
    assert runner.finish_update(old).completed == 0


def test_batches_are_visited_at_the_end_of_an_update_only_after_a_return(old: Db) -> None:
    runner.migrate(old)
    steps: list[str] = []
    runner.finish_update(old, lambda progress: steps.append(progress.step))
    assert not any("batches" in step for step in steps)
    return_to_old_code(old)
    runner.finish_update(old, lambda progress: steps.append(progress.step))
    assert any("batches" in step for step in steps)
