"""Tests that a folder with more entries than fit into a tick is searched to its end in several ticks."""

import os
import time
from pathlib import Path

import pytest

from shared.bootstrap import Stores
from shared.ids import new_batch_id
from shared.storage.blob_keys import FILES, INCOMING, INSPECTION_FILES, SHARDS, shard_prefix, spool_key
from shared.storage.local_blobs import TEMP, LocalBlobs
from shared.storage.mongo import Db
from tests.support.ledger import commit_new_batch
from worker.sweep.inspections import InspectionSweep
from worker.sweep.orphans import OrphanedFiles, TemporaryFiles
from worker.sweep.spools import OrphanedSpools

pytestmark = pytest.mark.slow
NO_TIME = 0.0


def make_older(root: Path) -> None:
    """Set the modification time of everything in a folder to two hours ago."""
    two_hours_ago = time.time() - 7200
    for path in root.rglob("*"):
        os.utime(path, (two_hours_ago, two_hours_ago))


def test_old_spools_are_searched_in_parts(db: Db, stores: Stores, blobs: LocalBlobs, blobs_root: Path) -> None:
    accepted = {commit_new_batch(db, images=1) for _ in range(20)}
    for batch_id in accepted | {new_batch_id() for _ in range(80)}:
        blobs.write(spool_key(batch_id), [b"x"])
    make_older(blobs_root)
    orphans = OrphanedSpools(stores)
    parts = 1
    while orphans.clean(NO_TIME):
        parts += 1
    assert parts == 4
    assert {blob.key for blob in blobs.list("spool")} == {spool_key(batch_id) for batch_id in accepted}
    assert db.ledger.count_documents({"state": "abandoned"}) == 80


def test_a_shard_that_takes_several_ticks_is_searched_to_its_end(
    db: Db, stores: Stores, blobs: LocalBlobs, blobs_root: Path
) -> None:
    shard = shard_prefix(FILES, 1)
    gone = [f"{number:030x}01" for number in range(100)]
    db.ledger.insert_many({"_id": batch_id, "received": 1, "deleted": 1, "state": "deleted", "at": None} for batch_id in gone)
    for batch_id in [*gone, f"{100:030x}01"]:  # nothing is known about the last one, so it is kept
        blobs.write(f"{shard}/{batch_id}/0000.jpg", [b"x"])
    orphans = OrphanedFiles(stores)
    for _ in range(3):
        assert orphans.clean(NO_TIME)
    assert not orphans.clean(NO_TIME)
    assert list(blobs.folders(shard)) == [f"{100:030x}01"]
    blobs.write(f"{shard_prefix(FILES, 2)}/{gone[0]}/0000.jpg", [b"x"])
    assert not orphans.clean(NO_TIME)  # the next shard
    assert orphans._shard == 2


def test_left_over_temporary_files_are_deleted_in_parts(stores: Stores, blobs: LocalBlobs, blobs_root: Path) -> None:
    for number in range(100):
        blobs.write_many([(f"{TEMP}/tree{number}/0/thumb", [b"x"]), (f"{TEMP}/file{number}", [b"x"])])
    make_older(blobs_root)
    blobs.write(f"{TEMP}/being-written", [b"x"])
    temporary = TemporaryFiles(stores)
    while temporary.clean(NO_TIME):
        pass
    assert [path.name for path in (blobs_root / TEMP).iterdir()] == ["being-written"]


def test_files_of_no_inspection_are_deleted_in_parts(stores: Stores, blobs: LocalBlobs, blobs_root: Path) -> None:
    shard = shard_prefix(INSPECTION_FILES, 1)
    for number in range(100):
        blobs.write_many([(f"{shard}/{number:030x}01/thumb.jpg", [b"x"]), (f"{INCOMING}/{number}", [b"x"])])
    make_older(blobs_root)
    blobs.write_many([(f"{shard}/{1000:030x}01/thumb.jpg", [b"x"]), (f"{INCOMING}/new", [b"x"])])
    sweep = InspectionSweep(stores)
    ticks = 1
    while sweep.clean(NO_TIME):
        ticks += 1
    assert 3 <= ticks < SHARDS
    assert [blob.key for blob in blobs.list(INCOMING)] == [f"{INCOMING}/new"]
    assert list(blobs.folders(shard)) == [f"{1000:030x}01"]
