"""Finished images are queued again, and keep their results until there are new ones."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pymongo
import pytest
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from shared import failpoints, settings
from shared.errors import Conflict, Forbidden, NotFound
from shared.ids import new_batch_id
from shared.ledger import audit, cancellation, claims, closing, deletion, queries, reprocessing, results, settlement
from shared.ledger.reprocessing import Options, Requeued
from shared.ledger.shown_results import shown_fence
from shared.storage.migrations import update_end
from shared.storage.mongo import Db
from tests.support.ledger import (
    commit_new_batch,
    expire_leases,
    failed_results,
    process_all,
    successful_results,
    validate_documents,
)

_DETECTED = {
    "detections": [{"label": "apple", "score": 0.9, "box": [0, 0, 1, 1]}],
    "top_score": 0.9,
    "model": {"name": "m", "version": "1", "weights_sha256": "a" * 64},
    "augmentations": [{"name": "rotate", "params": {}, "file_path": "/x", "boxes": []}],
}


def _finish(db: Db, *, fail: bool = False, owner: str = "w", **fields: Any) -> None:
    claim = claims.claim(db, owner, 32, 60)
    results.finish(db, owner, failed_results(claim) if fail else successful_results(claim, **(_DETECTED | fields)))
    closing.close_batches(db, {image["batch_id"] for image in claim.images})


def _all(db: Db, batch_id: str, options: Options = Options(), **only: str) -> Requeued:  # noqa: B008 -- a frozen value
    return reprocessing.reprocess(db, batch_id, reprocessing.choose(only.get("only", "all"), options, "a" * 64), options, None)


def _images(db: Db, batch_id: str) -> list[dict[str, Any]]:
    return list(db.images.find({"batch_id": batch_id}).sort("index", 1))


def test_a_reprocessed_batch_is_open_again_and_its_images_keep_their_results_until_new_ones_are_stored(db: Db) -> None:
    batch_id = commit_new_batch(db, 2)
    _finish(db)
    before = _images(db, batch_id)
    assert _all(db, batch_id, Options(augmentations=("grayscale",), detect=False)) == Requeued(2, 1)
    header = queries.get_batch(db, batch_id, None)
    assert (header["status"], header["finished_at"], header["counts"]["queued"]) == ("queued", None, 2)
    for old, new in zip(before, _images(db, batch_id), strict=True):
        assert new["status"] == "queued"
        assert {name: new[name] for name in (*_DETECTED, "finished_at")} == {name: old[name] for name in (*_DETECTED, "finished_at")}
        assert shown_fence(new) == shown_fence(old) == 1
        assert (new["work"]["augmentations"], new["work"]["detect"]) == (["grayscale"], False)
    validate_documents(db)
    claim = claims.claim(db, "w", 32, 60)
    assert {shown_fence(image) for image in _images(db, batch_id)} == {1}
    results.finish(db, "w", successful_results(claim, detections=[], model=None))
    closing.close_batches(db, [batch_id])
    assert {(shown_fence(image), image["work"]["fence"], image["status"]) for image in _images(db, batch_id)} == {(2, 2, "done")}
    assert not any("top_score" in image for image in _images(db, batch_id))
    assert queries.get_batch(db, batch_id, None)["finished_at"] > header["created_at"]
    validate_documents(db)


def test_a_reprocessing_that_fails_leaves_a_done_image_done_with_its_old_result(db: Db) -> None:
    batch_id = commit_new_batch(db, 1)
    _finish(db)
    (before,) = _images(db, batch_id)
    _all(db, batch_id)
    _finish(db, fail=True)
    (after,) = _images(db, batch_id)
    assert (after["status"], after["error"], shown_fence(after), after["work"]["fence"]) == ("done", None, 1, 2)
    assert {name: after[name] for name in (*_DETECTED, "finished_at")} == {name: before[name] for name in (*_DETECTED, "finished_at")}
    assert queries.get_batch(db, batch_id, None)["status"] == "done"


def test_a_failed_image_gets_the_result_of_its_next_attempt(db: Db) -> None:
    batch_id = commit_new_batch(db, 1)
    _finish(db, fail=True)
    assert _all(db, batch_id, only="failed").queued == 1
    (waiting,) = _images(db, batch_id)
    assert (waiting["status"], waiting["error"]["code"], shown_fence(waiting)) == ("queued", "corrupt", None)
    _finish(db)
    (image,) = _images(db, batch_id)
    assert (image["status"], image["error"], shown_fence(image)) == ("done", None, 2)


def test_a_result_of_the_version_before_counts_as_shown_while_it_is_reprocessed(db: Db) -> None:
    batch_id = commit_new_batch(db, 1)
    _finish(db)
    db.images.update_many({}, {"$unset": {"shown": ""}})
    assert shown_fence(_images(db, batch_id)[0]) == 1
    _all(db, batch_id)
    (image,) = _images(db, batch_id)
    assert (image["status"], image["shown"]) == ("queued", {"fence": 1})


@pytest.mark.parametrize(
    ("only", "options", "queued"),
    [
        ("failed", Options(), [1]),
        ("cancelled", Options(), [2]),
        ("all", Options(), [0, 1, 2, 3]),
        ("stale", Options(), [3]),
        ("stale", Options(augmentations=("rotate",)), [3]),
        ("stale", Options(augmentations=("grayscale",)), [0, 3]),
        ("stale", Options(detect=True), [3]),
        ("stale", Options(detect=False), [0, 3]),
    ],
    ids=["failed", "cancelled", "all", "stale", "same-augmentations", "other-augmentations", "detect", "do-not-detect"],
)
def test_only_chooses_images_by_their_state_or_by_what_made_their_result(db: Db, only: str, options: Options, queued: list[int]) -> None:
    batch_id = commit_new_batch(db, 4)
    claim = claims.claim(db, "w", 32, 60)
    done, failed = successful_results(claim, **_DETECTED), failed_results(claim)
    old_model = successful_results(claim, **(_DETECTED | {"model": {"name": "m", "version": "0", "weights_sha256": "b" * 64}}))
    results.finish(db, "w", [done[0], failed[1], old_model[3]])
    claims.release(db, "w", [claim.leases[2]], "stopping", delay=False)
    cancellation.cancel(db, batch_id, None)
    assert queries.get_batch(db, batch_id, None)["status"] == "cancelled"
    assert _all(db, batch_id, options, only=only).queued == len(queued)
    assert [image["index"] for image in _images(db, batch_id) if image["status"] == "queued"] == queued


def test_a_request_that_chooses_no_image_changes_nothing(db: Db) -> None:
    batch_id = commit_new_batch(db, 2)
    _finish(db)
    before = db.batches.find_one({"_id": batch_id})
    assert _all(db, batch_id, only="failed") == Requeued(0, 0)
    assert db.batches.find_one({"_id": batch_id}) == before


def test_images_that_wait_or_are_being_processed_are_left(db: Db) -> None:
    batch_id = commit_new_batch(db, 3)
    first = claims.claim(db, "w", 1, 60)
    second = claims.claim(db, "w2", 1, 60)
    results.finish(db, "w", successful_results(first))
    assert _all(db, batch_id) == Requeued(1, 1)
    assert [(image["status"], image["work"]["generation"]) for image in _images(db, batch_id)] == [("queued", 1), ("processing", 0), ("queued", 0)]
    results.finish(db, "w2", successful_results(second))
    process_all(db)
    assert queries.get_batch(db, batch_id, None)["counts"]["done"] == 3


def test_requests_at_the_same_time_queue_each_image_once(db: Db) -> None:
    batch_id = commit_new_batch(db, 20)
    _finish(db)
    answers: list[Requeued] = []
    threads = [threading.Thread(target=lambda: answers.append(_all(db, batch_id))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(answer.queued for answer in answers) == 20
    assert {image["work"]["generation"] for image in _images(db, batch_id)} == {1}
    process_all(db)
    assert {image["work"]["fence"] for image in _images(db, batch_id)} == {2}


def test_foreign_unknown_and_deleted_batches_are_refused(db: Db) -> None:
    batch_id = commit_new_batch(db, store=["north", "south"])
    _finish(db)
    with pytest.raises(Forbidden):
        reprocessing.reprocess(db, batch_id, {}, Options(), frozenset({"north"}))
    with pytest.raises(NotFound):
        _all(db, new_batch_id())
    deletion.begin_delete(db, batch_id, None)
    with pytest.raises(NotFound):
        _all(db, batch_id)


def test_a_batch_that_is_being_cancelled_is_not_reprocessed(db: Db) -> None:
    batch_id = commit_new_batch(db, 2)
    claims.claim(db, "w", 1, 60)
    cancellation.cancel(db, batch_id, None)
    with pytest.raises(Conflict) as caught:
        _all(db, batch_id)
    assert (caught.value.code, caught.value.retry_after) == ("batch_cancelling", 2)
    assert f"`GET /image_batches/{batch_id}?wait=30`" in caught.value.detail


def test_an_interrupted_reprocessing_keeps_the_batch_open_until_the_sweep_completes_it(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = commit_new_batch(db, 2)
    _finish(db)
    with monkeypatch.context() as patch:
        patch.setattr(reprocessing, "_complete", lambda *_: None)
        assert _all(db, batch_id).generation == 1
    assert closing.close_batches(db, [batch_id]) == []
    assert reprocessing.find_marked(db, 10) == [batch_id]
    reprocessing.complete(db, [batch_id])
    assert {image["status"] for image in _images(db, batch_id)} == {"queued"}
    assert reprocessing.find_marked(db, 10) == []
    process_all(db)
    reprocessing.complete(db, [batch_id])
    assert {image["status"] for image in _images(db, batch_id)} == {"done"}


@pytest.fixture
def at_failpoint() -> Iterator[Callable[[str, Callable[[], object]], None]]:
    """Return a function that lets something happen, once, when this process reaches a failpoint."""

    def install(point: str, call: Callable[[], object]) -> None:
        def hook(name: str) -> None:
            if name == point:
                failpoints.install(None)
                call()

        failpoints.install(hook)

    yield install
    failpoints.install(None)


def test_a_request_that_the_sweep_has_completed_meanwhile_queues_nothing_again(
    db: Db, at_failpoint: Callable[[str, Callable[[], object]], None]
) -> None:
    batch_id = commit_new_batch(db, 2)
    _finish(db)

    def complete_and_process() -> None:
        reprocessing.complete(db, [batch_id])
        process_all(db)

    at_failpoint("13-reprocessing-marked", complete_and_process)
    assert _all(db, batch_id) == Requeued(2, 1)
    assert {(image["status"], image["work"]["fence"]) for image in _images(db, batch_id)} == {("done", 2)}
    assert queries.get_batch(db, batch_id, None)["status"] == "done"


def test_a_mark_that_is_completed_twice_queues_a_processed_image_once(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = commit_new_batch(db, 1)
    _finish(db)
    with monkeypatch.context() as patch:
        patch.setattr(reprocessing, "_complete", lambda *_: None)
        _all(db, batch_id)
    (marked,) = db.batches.find({"_id": batch_id})
    reprocessing.complete(db, [batch_id])
    process_all(db)
    db.batches.update_one({"_id": batch_id}, {"$set": {"reprocessing": marked["reprocessing"]}})  # as a frozen process would see it
    reprocessing.complete(db, [batch_id])
    assert _images(db, batch_id)[0]["status"] == "done"


def test_a_deletion_ends_a_reprocessing(db: Db) -> None:
    batch_id = commit_new_batch(db, 2)
    _finish(db)
    _all(db, batch_id)
    deletion.begin_delete(db, batch_id, None)
    assert claims.claim(db, "w", 8, 60).images == []
    assert audit.balance(db)["deleted"] == 2


def test_a_spool_or_old_files_settled_before_a_reprocessing_are_looked_at_again_after_it(db: Db) -> None:
    batch_id = commit_new_batch(db, 1)
    _finish(db)
    generations = {batch_id: settlement.read_closed(db, [batch_id])[batch_id].generation}
    _all(db, batch_id)
    process_all(db)
    settlement.record_settled(db, generations, [batch_id])  # late, by a process that was frozen
    settlement.record_swept(db, batch_id, generations[batch_id])
    assert db.batches.count_documents({"_id": batch_id, "spooled": True, "unswept": True}) == 1


def test_the_ledger_balances_at_each_step(db: Db) -> None:
    batch_id = commit_new_batch(db, 3)
    _finish(db)
    _all(db, batch_id)
    assert audit.balance(db) == {"received": 3, "done": 0, "failed": 0, "cancelled": 0, "pending": 3, "deleted": 0}
    claim = claims.claim(db, "w", 2, 60)
    expire_leases(db, [claim.images[0]["_id"]])
    claims.expire_leases(db)
    process_all(db, "other", 8)
    results.finish(db, "w", failed_results(claim))
    assert audit.balance(db)["done"] == 3


def test_images_of_several_batches_are_queued_together(db: Db) -> None:
    batches = [commit_new_batch(db, 3) for _ in range(3)]
    process_all(db)
    chosen = [f"{batch_id}{index:04x}" for batch_id in batches for index in (0, 2)]
    assert reprocessing.reprocess_images(db, chosen, {}, Options(job="j"), None) == dict.fromkeys(batches, 2)
    assert {image["_id"] for image in db.images.find({"status": "queued"})} == set(chosen)
    assert {image["history"]["requests"][-1]["job"] for image in db.images.find({"status": "queued"})} == {"j"}
    assert reprocessing.reprocess_images(db, chosen, {}, Options(), None) == {}


def test_nothing_is_reprocessed_or_cancelled_until_an_update_of_the_service_is_finished(db: Db) -> None:
    batch_id = commit_new_batch(db, 1)
    _finish(db)
    waiting = commit_new_batch(db, 1)
    update_end.record_begin(db)
    for request in (lambda: _all(db, batch_id), lambda: reprocessing.reprocess_images(db, [f"{batch_id}0000"], {}, Options(), None), lambda: cancellation.cancel(db, waiting, None)):
        with pytest.raises(Conflict) as caught:
            request()
        assert caught.value.code == "update_unfinished"
    assert _images(db, batch_id)[0]["status"] == "done"


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_options_of_an_attempt_without_a_result_do_not_outlive_it(db: Db, end: str) -> None:
    batch_id = commit_new_batch(db, 1)
    _finish(db)
    _all(db, batch_id, Options(augmentations=("grayscale",), detect=False))
    if end == "failed":
        _finish(db, fail=True)
    else:
        cancellation.cancel(db, batch_id, None)
    work = _images(db, batch_id)[0]["work"]
    assert (work["augmentations"], work["detect"]) == (["rotate"], True)
    assert _all(db, batch_id, only="stale").queued == 0
    weights = {"model": {"name": "m", "version": "0", "weights_sha256": "b" * 64}}
    db.images.update_many({}, {"$set": weights})
    assert _all(db, batch_id, only="stale").queued == 1


def test_only_the_images_that_are_processed_again_count_in_the_backlog(db: Db) -> None:
    batch_id = commit_new_batch(db, 10)
    assert audit.backlog(db).bytes == 10_000
    _finish(db)
    assert audit.backlog(db).bytes == 0
    chosen = [f"{batch_id}{index:04x}" for index in range(3)]
    reprocessing.reprocess_images(db, chosen[:1], {}, Options(), None)
    assert audit.backlog(db).bytes == 1000
    reprocessing.reprocess_images(db, chosen[1:], {}, Options(), None)
    assert audit.backlog(db).bytes == 3000
    process_all(db)
    assert audit.backlog(db).bytes == 0


def test_a_request_does_not_hide_how_long_an_open_batch_has_waited(db: Db) -> None:
    batch_id = commit_new_batch(db, 2)
    results.finish(db, "w", successful_results(claims.claim(db, "w", 1, 60)))
    db.batches.update_many({}, [{"$set": {"created_at": {"$subtract": ["$created_at", 5 * 3_600_000]}}}])
    assert _all(db, batch_id).queued == 1
    assert audit.backlog(db).oldest_age_s > 4 * 3600


class MarkReads(CommandListener):
    """Records the read concerns of the queries for batches."""

    def __init__(self) -> None:
        self.levels: list[str | None] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "find" and event.command["find"] == "batches":
            self.levels.append(event.command.get("readConcern", {}).get("level"))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Record nothing."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Record nothing."""


def test_marks_are_read_with_the_read_concern_majority(db: Db, mongo: settings.Mongo) -> None:
    batch_id, recorder = commit_new_batch(db, 1), MarkReads()
    with pymongo.MongoClient[dict[str, Any]](mongo.url, event_listeners=[recorder]) as client:
        listening = client.get_database(db.name)
        reprocessing.complete(listening, [batch_id])
        reprocessing.find_marked(listening, 1)
        cancellation.find_cancelling(listening, "", 1)
    assert recorder.levels == ["majority"] * 3
