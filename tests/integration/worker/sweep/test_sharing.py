"""Tests that sweep processes share the work per batch, that each batch is held by one, and that none blocks the others."""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.bootstrap import Stores
from shared.errors import StoreAway
from shared.ledger import deletion, settlement
from shared.storage.blob_keys import image_prefix, original_key, spool_key, variant_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import run, upload
from tests.support.ledger import commit_new_batch, finish_earlier, process_all, utc_now
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import ImagePipeline
from worker.sweep import deletions, lost_claims, spools
from worker.sweep.sweep import Sweep

pytestmark = pytest.mark.slow
NO_LIMIT = float("inf")


def close_batches(db: Db, number: int) -> list[str]:
    """Return the ids of batches that were closed a minute ago, without files and with spools that nobody has settled."""
    ids = [commit_new_batch(db, images=1) for _ in range(number)]
    process_all(db)
    finish_earlier(db, 60)
    return ids


@pytest.mark.usefixtures("without_settling")
def test_a_sweep_that_does_not_lead_settles_spools_too(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, stores: Stores
) -> None:
    leader, other = Sweep(stores), Sweep(stores)
    leader.tick()
    accepted = upload(web, db, [image_payload(make_image(1))])
    run(pipeline)
    finish_earlier(db, 60)
    other.tick()
    assert stores.blobs.stat(spool_key(accepted["batch_id"])) is None


def test_concurrent_sweeps_claim_each_batch_once(db: Db) -> None:
    ids = close_batches(db, 40)
    claimed: list[str] = []

    def claim_all() -> None:
        while batch_id := settlement.claim_unsettled(db):
            claimed.append(batch_id)

    threads = [threading.Thread(target=claim_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(ids)
    db.batches.update_one({"_id": ids[7]}, {"$set": {"sweep_until": utc_now() - timedelta(seconds=1)}})
    assert settlement.claim_unsettled(db) == ids[7]  # a sweep that died holds its batch for a while only


@pytest.mark.parametrize("kind", ["open", "deleting", "just closed"])
def test_no_batch_is_claimed_that_its_worker_or_a_deletion_still_handles(db: Db, kind: str) -> None:
    if kind == "open":
        commit_new_batch(db)
    else:
        (batch_id,) = close_batches(db, 1)
        if kind == "deleting":
            deletion.begin_delete(db, batch_id, None)
        else:
            db.batches.update_one({}, {"$currentDate": {"finished_at": True}})
    assert settlement.claim_unsettled(db) is None
    assert settlement.claim_unswept(db, 30) is None


def test_the_claims_read_only_index_entries_of_batches_that_are_due(db: Db) -> None:
    """Neither a backlog of open batches nor deleted batches whose files are gone must slow down the sweep."""
    close_batches(db, 3)
    for _ in range(100):
        batch_id = commit_new_batch(db, images=1)
        deletion.begin_delete(db, batch_id, None)
        deletion.mark_files_deleted(db, batch_id)
        commit_new_batch(db, images=1)
    deletion.begin_delete(db, batch_id := commit_new_batch(db, images=1), None)
    db.command("profile", 2)
    try:
        assert settlement.claim_unsettled(db) is not None
        assert settlement.claim_unswept(db, 30) is not None
        assert deletion.claim_with_files(db) == batch_id
        assert deletion.claim_deletable(db, 30) is None
    finally:
        db.command("profile", 0)
    claims = db["system.profile"].find({"command.findAndModify": "batches"})
    examined = [(entry["keysExamined"], entry["docsExamined"]) for entry in claims]
    assert len(examined) == 4
    assert max(max(pair) for pair in examined) <= 4


@pytest.mark.parametrize("error", [StoreAway("an input/output error"), RuntimeError("a bug")], ids=["store", "bug"])
@pytest.mark.parametrize("part", ["spools", "lost claims", "deletions"])
def test_batches_that_cannot_be_cleaned_do_not_block_the_others(
    db: Db,
    stores: Stores,
    blobs: LocalBlobs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    part: str,
    error: Exception,
) -> None:
    stores.identity.check()
    ids = close_batches(db, 6)
    failing = ids[:3]
    db.images.update_many({}, {"$set": {"work.fence": 2}})
    blobs.write_many([(original_key(image["_id"], "jpg"), [b"x" * 1000]) for image in db.images.find()])
    db.images.update_many({}, {"$set": {"work.stored": True}})
    query, clean = prepare(db, part, ids)

    def fail(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: LocalBlobs, key: str) -> Any:
            if any(batch_id in key for batch_id in failing):
                raise error
            return function(self, key)

        return call

    for name in ("stat", "folders", "delete_tree"):
        monkeypatch.setattr(LocalBlobs, name, fail(getattr(LocalBlobs, name)))
    caplog.clear()
    with caplog.at_level(logging.WARNING, "shelfsight.error"):
        assert not clean(stores, NO_LIMIT)
    assert sorted(batch["_id"] for batch in db.batches.find(query)) == failing
    reported = [batch_id for message in caplog.messages for batch_id in ids if batch_id in message]
    assert sorted(reported) == failing


def prepare(db: Db, part: str, ids: list[str]) -> tuple[dict[str, Any], Callable[[Stores, float], bool]]:
    """Make batches due for a part of the sweep. Return the query for the batches that are due, and the part."""
    if part == "deletions":
        for batch_id in ids:
            deletion.begin_delete(db, batch_id, None)
        return {"uncleared": True}, deletions.finish_batches
    if part == "spools":
        return {"spooled": True}, spools.settle_left
    finish_earlier(db, 3600)
    return {"unswept": True}, lost_claims.clean


@pytest.mark.parametrize("part", ["spools", "lost claims", "deletions"])
def test_a_part_stops_at_its_time_limit_and_says_so(db: Db, stores: Stores, part: str) -> None:
    stores.identity.check()
    query, clean = prepare(db, part, close_batches(db, 3))
    for left in (2, 1, 0):
        assert clean(stores, 0.0)
        assert db.batches.count_documents(query) == left
    assert not clean(stores, NO_LIMIT)


def test_documents_are_deleted_although_there_are_always_batches_whose_files_must_be_deleted_first(
    db: Db, stores: Stores
) -> None:
    stores.identity.check()
    *deleted_now, deleted_earlier = close_batches(db, 4)
    for batch_id in (*deleted_now, deleted_earlier):
        deletion.begin_delete(db, batch_id, None)
    deletion.mark_files_deleted(db, deleted_earlier)
    db.batches.update_one({"_id": deleted_earlier}, {"$set": {"deleting_at": utc_now() - timedelta(days=1)}})
    assert deletions.finish_batches(stores, 0.0)
    assert db.batches.count_documents({"uncleared": True}) == 2
    assert db.batches.find_one({"_id": deleted_earlier}) is None
    assert db.images.count_documents({"batch_id": deleted_earlier}) == 0


def test_only_the_files_of_lost_claims_are_deleted(db: Db, stores: Stores, blobs: LocalBlobs) -> None:
    (batch_id,) = close_batches(db, 1)
    image: Any = db.images.find_one({"batch_id": batch_id})
    db.images.update_one({"_id": image["_id"]}, {"$set": {"work.fence": 3, "shown.fence": 3}})
    blobs.write_many([(variant_key(image["_id"], fence, "thumb"), [b"x"]) for fence in (1, 2, 3)])
    finish_earlier(db, 3600)
    assert not lost_claims.clean(stores, NO_LIMIT)
    assert list(blobs.folders(image_prefix(image["_id"]))) == ["3"]
    assert db.batches.count_documents({"unswept": {"$exists": True}}) == 0
