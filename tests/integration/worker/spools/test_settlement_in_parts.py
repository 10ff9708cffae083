"""Tests that a large batch is settled in parts, each of which takes a bounded number of accesses, and that none is lost or repeated."""

import logging
from typing import Any

import pytest

from shared.bootstrap import Stores
from shared.ids import image_id
from shared.ledger import settlement as ledger
from shared.storage.blob_keys import IDENTITY, image_prefix, spool_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker import stored_batches
from tests.integration.worker.running import Killed
from tests.support.ledger import validate_documents
from worker.spools import settlement
from worker.spools.settlement import settle
from worker.sweep import spools

pytestmark = pytest.mark.slow
IMAGES = 10
PART = 3
PARTS = 4
AT_ONCE = 0.0
"""A time limit that is over, so each call settles one part."""
DONE = {"status": "done", "work.fence": 1, "shown": {"fence": 1, "version": 1}}


@pytest.fixture
def stores(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Stores:
    monkeypatch.setattr(settlement, "_AT_ONCE", PART)
    stores.identity.check()
    return stores


def _cancel(db: Db, blobs: LocalBlobs) -> str:
    batch_id = stored_batches.commit(db, blobs, IMAGES)
    stored_batches.close(db, batch_id, status="cancelled")
    return batch_id


def _has_spool(blobs: LocalBlobs, batch_id: str) -> bool:
    return blobs.stat(spool_key(batch_id)) is not None


def test_each_call_restores_one_part_and_the_next_one_continues_after_it(db: Db, stores: Stores, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = _cancel(db, blobs)
    total = 0
    for call in range(PARTS):
        with monkeypatch.context() as patched:
            calls = stored_batches.record_calls(patched, "write_many", "stat", "delete")
            assert spools.settle_left(stores, AT_ONCE)
        written = sum(number for (name, _), number in calls.items() if name == "write_many")
        assert written == min(PART, IMAGES - total)
        assert sum(number for (name, _), number in calls.items() if name == "stat") <= PART
        total += written
        is_last = call == PARTS - 1
        assert calls["delete", spool_key(batch_id)] == is_last
        assert _has_spool(blobs, batch_id) is not is_last
        assert db.images.count_documents({"work.stored": True}) == total
        validate_documents(db)
    assert not spools.settle_left(stores, AT_ONCE)
    assert stored_batches.are_stored(blobs, batch_id, IMAGES)
    assert db.batches.count_documents({"$or": [{name: {"$exists": True}} for name in ("spooled", "settled_to", "sweep_until")]}) == 0


def test_a_part_is_limited_in_bytes_too(db: Db, stores: Stores, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    _cancel(db, blobs)
    monkeypatch.setattr(settlement, "_BYTES_AT_ONCE", 2 * stored_batches.BYTES)
    monkeypatch.setattr(settlement, "_LEAST_BYTES", 1)
    for stored in (2, 4):
        assert spools.settle_left(stores, AT_ONCE)
        assert db.images.count_documents({"work.stored": True}) == stored


@pytest.mark.parametrize(
    ("point", "part"),
    [
        *((point, part) for point in ("write", "9-part-settled") for part in range(PARTS)),
        *(("progress", part) for part in range(PARTS - 1)),
        ("9-before-spool-delete", PARTS - 1),
        ("record", PARTS - 1),
    ],
)
def test_a_settlement_that_is_killed_in_any_part_is_continued_by_another_sweep(
    db: Db, stores: Stores, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch, failpoint: Any, point: str, part: int
) -> None:
    batch_id = _cancel(db, blobs)
    for _ in range(part):
        assert spools.settle_left(stores, AT_ONCE)

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        if point == "write":
            patched.setattr(LocalBlobs, "write_many", kill)
        elif point in {"progress", "record"}:
            patched.setattr(ledger, "record_settled_to" if point == "progress" else "record_settled", kill)
        else:
            failpoint(lambda name: kill() if name == point else None)
        with pytest.raises(Killed):
            spools.settle_left(stores, AT_ONCE)
        failpoint(None)
    assert _has_spool(blobs, batch_id) is (point != "record")
    assert not spools.settle_left(stores, AT_ONCE)  # the dead sweep holds the batch
    db.batches.update_many({}, {"$unset": {"sweep_until": ""}})
    calls = stored_batches.record_calls(monkeypatch, "write_many")
    while spools.settle_left(stores, AT_ONCE):
        pass
    assert stored_batches.are_stored(blobs, batch_id, IMAGES)
    assert not _has_spool(blobs, batch_id)
    assert db.batches.count_documents({"spooled": True}) == 0
    repeated = part * PART + (0 if point == "write" else PART)
    assert calls.total() == max(0, IMAGES - repeated)  # nothing is written twice


def test_a_lost_original_in_an_early_part_keeps_the_spool_whatever_is_settled_later(
    db: Db, stores: Stores, blobs: LocalBlobs, caplog: pytest.LogCaptureFixture
) -> None:
    batch_id = stored_batches.commit(db, blobs, IMAGES)
    stored_batches.close(db, batch_id, status="failed", error={"code": "corrupt", "detail": "Broken."})
    stored_batches.store_originals(blobs, batch_id, IMAGES)
    blobs.write(stored_batches.key(batch_id, 1), [b"damaged"])
    blobs.write(spool_key(batch_id), [b"damaged, too"])
    while spools.settle_left(stores, AT_ONCE):
        pass
    assert _has_spool(blobs, batch_id)
    assert db.batches.count_documents({"$or": [{"spooled": True}, {"settled_to": {"$exists": True}}]}) == 0
    assert db.images.count_documents({"work.stored": True}) == IMAGES - 1
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    stored_batches.reprocess(db, batch_id, [5], 1)  # the spool is still needed after another image has a new result
    assert settle(stores, [batch_id]) == {batch_id}
    assert _has_spool(blobs, batch_id)


def test_a_batch_that_is_reprocessed_between_two_parts_begins_anew(db: Db, stores: Stores, blobs: LocalBlobs) -> None:
    batch_id = _cancel(db, blobs)
    late = ledger.read_closed(db, [batch_id])[batch_id]
    assert spools.settle_left(stores, AT_ONCE)
    assert ledger.read_closed(db, [batch_id])[batch_id].settled_to == PART
    stored_batches.reprocess(db, batch_id, [0], 1)
    assert ledger.read_closed(db, [batch_id])[batch_id].settled_to == 0
    ledger.record_settled_to(db, batch_id, late)  # by a sweep that was frozen
    blobs.delete(stored_batches.key(batch_id, 0))
    while spools.settle_left(stores, AT_ONCE):
        pass
    assert stored_batches.are_stored(blobs, batch_id, IMAGES)
    assert not _has_spool(blobs, batch_id)


def test_a_sweep_that_was_frozen_between_two_parts_changes_nothing_after_another_has_settled_the_batch(
    db: Db, stores: Stores, blobs: LocalBlobs, failpoint: Any
) -> None:
    batch_id = _cancel(db, blobs)

    def settle_meanwhile(name: str) -> None:
        if name == "9-part-settled":
            failpoint(None)
            assert settle(stores, [batch_id]) == {batch_id}

    failpoint(settle_meanwhile)
    assert spools.settle_left(stores, AT_ONCE)
    assert not spools.settle_left(stores, AT_ONCE)
    assert stored_batches.are_stored(blobs, batch_id, IMAGES)
    assert db.batches.count_documents({"$or": [{"spooled": True}, {"settled_to": {"$exists": True}}]}) == 0


def test_a_batch_whose_image_is_queued_between_two_parts_keeps_its_spool(db: Db, stores: Stores, blobs: LocalBlobs) -> None:
    batch_id = _cancel(db, blobs)
    assert spools.settle_left(stores, AT_ONCE)
    db.images.update_one({"_id": image_id(batch_id, IMAGES - 1)}, {"$set": {"status": "queued"}})
    while spools.settle_left(stores, AT_ONCE):
        pass
    assert _has_spool(blobs, batch_id)
    assert db.batches.count_documents({"spooled": True}) == 1


def _process(db: Db, blobs: LocalBlobs, *, stored: bool) -> str:
    """Return a closed batch whose images were processed once, by a worker that has recorded its originals or not."""
    batch_id = stored_batches.commit(db, blobs, IMAGES)
    stored_batches.store_originals(blobs, batch_id, IMAGES)
    stored_batches.store_variants(blobs, batch_id, IMAGES, [1])
    stored_batches.close(db, batch_id, **DONE | ({"work.stored": True} if stored else {}))
    return batch_id


def test_an_original_that_nobody_has_verified_is_hashed_once(db: Db, stores: Stores, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = _process(db, blobs, stored=False)
    with monkeypatch.context() as patched:
        calls = stored_batches.record_calls(patched, "read")
        assert settle(stores, [batch_id]) == {batch_id}
        assert {key for _, key in calls} - {IDENTITY} == {stored_batches.key(batch_id, index) for index in range(IMAGES)}
    stored_batches.reprocess(db, batch_id, [2], 1)
    calls = stored_batches.record_calls(monkeypatch, "read")
    assert settle(stores, [batch_id]) == {batch_id}
    assert {key for _, key in calls} <= {IDENTITY}


def test_a_reprocessing_of_one_image_settles_only_this_image(db: Db, stores: Stores, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = _process(db, blobs, stored=True)
    settle(stores, [batch_id])
    stored_batches.reprocess(db, batch_id, [4], 1)
    calls = stored_batches.record_calls(monkeypatch, "stat", "publish")
    assert settle(stores, [batch_id]) == {batch_id}
    assert sorted(calls) == sorted([
        ("publish", image_prefix(image_id(batch_id, 4))), ("stat", stored_batches.key(batch_id, 4)), ("stat", spool_key(batch_id)),
    ])  # fmt: skip
    assert calls.total() == 3
    assert db.batches.count_documents({"unswept": True}) == 1


def test_all_originals_are_checked_while_the_spool_exists(db: Db, stores: Stores, blobs: LocalBlobs) -> None:
    """The reprocessing has begun before the spool was settled for the first time."""
    batch_id = _process(db, blobs, stored=True)
    stored_batches.reprocess(db, batch_id, [4], 1)
    blobs.delete(stored_batches.key(batch_id, 7))
    assert settle(stores, [batch_id]) == {batch_id}
    assert stored_batches.are_stored(blobs, batch_id, IMAGES)
    assert not _has_spool(blobs, batch_id)


def test_a_reprocessed_batch_whose_queued_images_were_all_deleted_is_settled(db: Db, stores: Stores, blobs: LocalBlobs) -> None:
    batch_id = _process(db, blobs, stored=True)
    settle(stores, [batch_id])
    stored_batches.reprocess(db, batch_id, [4], 1)
    db.images.delete_one({"_id": image_id(batch_id, 4)})
    assert settle(stores, [batch_id]) == {batch_id}
    assert db.batches.count_documents({"spooled": True}) == 0


@pytest.mark.parametrize(("generation", "reads"), [(0, 1), (1, 2)], ids=["once", "again"])
def test_only_the_fences_of_reprocessed_images_are_read_again_after_they_are_published(
    db: Db, stores: Stores, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch, generation: int, reads: int
) -> None:
    monkeypatch.setattr(settlement, "_AT_ONCE", IMAGES + 1)
    batch_id = _process(db, blobs, stored=True)
    if generation:
        stored_batches.reprocess(db, batch_id, [0], generation)
    db.command("profile", 2)
    try:
        assert settle(stores, [batch_id]) == {batch_id}
    finally:
        db.command("profile", 0)
    assert db["system.profile"].count_documents({"command.find": "images"}) == reads
    assert db["system.profile"].count_documents({"op": "update", "ns": f"{db.name}.images"}) == 0


def test_a_reprocessed_batch_is_not_settled_in_an_empty_folder(db: Db, stores: Stores, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blob store disappears after its identity was checked. So the spool is not missing because it was settled."""
    batch_id = _process(db, blobs, stored=True)
    stored_batches.reprocess(db, batch_id, [0], 1)
    db.images.delete_one({"_id": image_id(batch_id, 0)})
    read_closed, away = ledger.read_closed, blobs._root.with_name("away")

    def read_and_unmount(*arguments: Any) -> Any:
        blobs._root.rename(away)
        return read_closed(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "read_closed", read_and_unmount)
        assert settle(stores, [batch_id]) == set()
    assert db.batches.count_documents({"spooled": True}) == 1
    away.rename(blobs._root)
    assert settle(stores, [batch_id]) == {batch_id}
    assert not _has_spool(blobs, batch_id)
