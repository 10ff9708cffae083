"""Tests that the clean-up of a large batch is done in parts, each of which takes a bounded number of accesses."""

from typing import Any

import pytest

from shared.bootstrap import Stores
from shared.errors import StoreAway
from shared.ids import image_id
from shared.ledger import settlement as ledger
from shared.storage.blob_keys import image_prefix
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker import stored_batches
from tests.integration.worker.running import Killed
from tests.support.ledger import finish_earlier, validate_documents
from worker.sweep import lost_claims

pytestmark = pytest.mark.slow
IMAGES = 10
PART = 3
PARTS = 4
AT_ONCE = 0.0
"""A time limit that is over, so each call cleans one part."""
LEFT = {"$or": [{name: {"$exists": True}} for name in ("unswept", "swept_to", "sweep_until")]}


@pytest.fixture
def stores(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Stores:
    monkeypatch.setattr(lost_claims, "_AT_ONCE", PART)
    stores.identity.check()
    return stores


@pytest.fixture
def batch_id(db: Db, blobs: LocalBlobs) -> str:
    """A batch whose images were all processed again, and whose spool is settled."""
    batch_id = stored_batches.commit(db, blobs, IMAGES)
    stored_batches.store_variants(blobs, batch_id, IMAGES, [1, 2])
    stored_batches.close(db, batch_id, status="done")
    _reprocess(db, batch_id, list(range(IMAGES)), 1)
    return batch_id


def _reprocess(db: Db, batch_id: str, indexes: list[int], generation: int) -> None:
    stored_batches.reprocess(db, batch_id, indexes, generation)
    db.batches.update_many({}, {"$unset": {"spooled": ""}})


def _fences(number: int) -> list[set[str]]:
    """Return the fences of which each image has files after the first ``number`` images were cleaned."""
    return [{"2"}] * number + [{"1", "2"}] * (IMAGES - number)


def test_each_call_cleans_one_part_and_the_next_one_continues_after_it(
    db: Db, stores: Stores, blobs: LocalBlobs, batch_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in range(1, PARTS + 1):
        cleaned = min(PART * call, IMAGES)
        with monkeypatch.context() as patched:
            calls = stored_batches.record_calls(patched, "publish", "folders", "delete_tree")
            db.command("profile", 2)
            assert lost_claims.clean(stores, AT_ONCE)
            db.command("profile", 0)
        assert db["system.profile"].count_documents({"command.find": "images"}) == 2 * call  # the images, and their fences after they are published
        assert calls.total() == 3 * (cleaned - PART * (call - 1))
        assert stored_batches.folders(blobs, batch_id, IMAGES) == _fences(cleaned)
        validate_documents(db)
    assert not lost_claims.clean(stores, AT_ONCE)
    assert db.batches.count_documents(LEFT) == 0


@pytest.mark.parametrize(
    ("point", "part"),
    [
        *((point, part) for point in ("14-files-published", "14-before-old-files-deleted", "14-part-swept") for part in range(PARTS)),
        *(("progress", part) for part in range(PARTS - 1)),
        ("14-old-files-deleted", PARTS - 1),
        ("record", PARTS - 1),
    ],
)
def test_a_clean_up_that_is_killed_in_any_part_is_continued_by_another_sweep(
    db: Db, stores: Stores, blobs: LocalBlobs, batch_id: str, monkeypatch: pytest.MonkeyPatch, failpoint: Any, point: str, part: int
) -> None:
    for _ in range(part):
        assert lost_claims.clean(stores, AT_ONCE)

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        if point in {"progress", "record"}:
            patched.setattr(ledger, "record_swept_to" if point == "progress" else "record_swept", kill)
        else:
            failpoint(lambda name: kill() if name == point else None)
        with pytest.raises(Killed):
            lost_claims.clean(stores, AT_ONCE)
        failpoint(None)
    assert not lost_claims.clean(stores, AT_ONCE)  # the dead sweep holds the batch
    db.batches.update_many({}, {"$unset": {"sweep_until": ""}})
    while lost_claims.clean(stores, AT_ONCE):
        pass
    assert stored_batches.folders(blobs, batch_id, IMAGES) == _fences(IMAGES)
    assert db.batches.count_documents(LEFT) == 0


def test_a_batch_that_is_reprocessed_between_two_parts_is_cleaned_anew_and_only_after_the_longest_write(
    db: Db, stores: Stores, blobs: LocalBlobs, batch_id: str
) -> None:
    late = ledger.read_closed(db, [batch_id])[batch_id]
    assert lost_claims.clean(stores, AT_ONCE)
    stored_batches.store_variants(blobs, batch_id, 1, [2, 3])
    _reprocess(db, batch_id, [0], 2)
    db.batches.update_many({}, {"$currentDate": {"finished_at": True}})
    ledger.record_swept_to(db, batch_id, late)  # by a sweep that was frozen
    assert not lost_claims.clean(stores, AT_ONCE)
    assert stored_batches.folders(blobs, batch_id, IMAGES)[0] == {"2", "3"}
    finish_earlier(db, 3600)
    while lost_claims.clean(stores, AT_ONCE):
        pass
    assert stored_batches.folders(blobs, batch_id, IMAGES) == [{"3"}, *_fences(IMAGES)[1:]]


def test_after_a_whole_clean_up_only_images_that_were_queued_since_then_are_looked_at(
    db: Db, stores: Stores, blobs: LocalBlobs, batch_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    while lost_claims.clean(stores, AT_ONCE):
        pass
    for generation, index in ((2, 4), (3, 7)):
        stored_batches.store_variants(blobs, batch_id, IMAGES, [2, generation + 1])
        _reprocess(db, batch_id, [index], generation)
        with monkeypatch.context() as patched:
            calls = stored_batches.record_calls(patched, "publish", "folders")
            while lost_claims.clean(stores, AT_ONCE):
                pass
        prefix = image_prefix(image_id(batch_id, index))
        assert calls == {("publish", prefix): 1, ("folders", prefix): 1}
        assert stored_batches.folders(blobs, batch_id, IMAGES)[index] == {str(generation + 1)}


def test_an_interrupted_clean_up_of_an_earlier_generation_is_not_forgotten(db: Db, stores: Stores, blobs: LocalBlobs, batch_id: str) -> None:
    assert lost_claims.clean(stores, AT_ONCE)
    stored_batches.store_variants(blobs, batch_id, 1, [2, 3])
    _reprocess(db, batch_id, [0], 2)
    while lost_claims.clean(stores, AT_ONCE):
        pass
    assert stored_batches.folders(blobs, batch_id, IMAGES) == [{"3"}, *_fences(IMAGES)[1:]]


def test_old_files_are_kept_while_the_new_ones_cannot_be_published(
    db: Db, stores: Stores, blobs: LocalBlobs, batch_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, unpublished = LocalBlobs.publish, image_prefix(image_id(batch_id, PART + 1))

    def fail(self: LocalBlobs, folder: str, version: str) -> None:
        if folder == unpublished:
            raise StoreAway("an input/output error")
        publish(self, folder, version)

    with monkeypatch.context() as patched:
        patched.setattr(LocalBlobs, "publish", fail)
        assert [lost_claims.clean(stores, AT_ONCE) for _ in range(3)] == [True, True, False]  # after a failure, the batch waits
        assert stored_batches.folders(blobs, batch_id, IMAGES) == _fences(PART)
        assert db.batches.count_documents({"unswept": True}) == 1
    db.batches.update_many({}, {"$unset": {"sweep_until": ""}})
    while lost_claims.clean(stores, AT_ONCE):
        pass
    assert stored_batches.folders(blobs, batch_id, IMAGES) == _fences(IMAGES)
