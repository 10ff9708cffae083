"""Database and file store belong together: a store that is another one, or not mounted, loses nothing."""

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared import settings
from shared.errors import DiskFull, StoreAway
from shared.storage.blob_keys import IDENTITY
from shared.storage.identity import StoreIdentity
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.support.web_client import image_payload, make_client, make_image, post_batch

pytestmark = pytest.mark.slow


def test_both_get_a_mark_once_and_every_later_process_finds_it(db: Db, tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    first = StoreIdentity(db, blobs)
    first.check()
    mark = blobs.read(IDENTITY)
    assert len(mark) == 32
    first.check()
    StoreIdentity(db, blobs).check()
    assert blobs.read(IDENTITY) == mark


def test_a_store_without_the_mark_is_refused_until_it_is_back_and_the_log_says_what_to_do(
    db: Db, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, away = tmp_path / "blobs", tmp_path / "away"
    bond = StoreIdentity(db, LocalBlobs(root))
    bond.check()
    root.rename(away)  # as if it were no longer mounted
    root.mkdir()
    with caplog.at_level(logging.CRITICAL, "shelfsight.error"):
        for late in (bond, bond, StoreIdentity(db, LocalBlobs(root))):
            with pytest.raises(StoreAway) as refused:
                late.check()
            assert refused.value.code == "blobs_unavailable"
            assert str(root) not in refused.value.detail
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2  # once a process
    assert "Is its volume mounted?" in said[0]
    root.rmdir()
    away.rename(root)
    bond.check()


def test_a_store_of_another_database_is_refused(db: Db, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    blobs.write(IDENTITY, [b"f" * 32])
    with pytest.raises(StoreAway):
        StoreIdentity(db, blobs).check()
    assert "another database" in caplog.text
    assert db.bonds.count_documents({}) == 0
    blobs.delete(IDENTITY)
    StoreIdentity(db, blobs).check()


def test_a_disk_that_was_full_at_the_beginning_leaves_no_mark_behind(db: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")

    def full(*_: object) -> None:
        raise DiskFull("There is no room left for files.")

    with monkeypatch.context() as during:
        during.setattr(blobs, "write", full)
        with pytest.raises(DiskFull):
            StoreIdentity(db, blobs).check()
    StoreIdentity(db, blobs).check()


def test_a_beginning_that_was_broken_off_is_ended_by_the_next(db: Db, tmp_path: Path) -> None:
    db.bonds.insert_one({"_id": "blobs", "mark": "a" * 32, "kept": False})
    blobs = LocalBlobs(tmp_path / "blobs")
    StoreIdentity(db, blobs).check()
    assert blobs.read(IDENTITY) == b"a" * 32
    assert db.bonds.count_documents({"kept": True}) == 1


def test_a_mark_that_was_changed_by_hand_in_both_is_taken_without_a_restart(db: Db, tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    bond = StoreIdentity(db, blobs)
    bond.check()
    db.bonds.update_one({}, {"$set": {"mark": "b" * 32}})
    blobs.write(IDENTITY, [b"b" * 32 + b"\n"])
    bond.check()


def test_many_processes_that_begin_at_once_agree(db: Db, tmp_path: Path) -> None:
    bonds = [StoreIdentity(db, LocalBlobs(tmp_path / "blobs")) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        for job in [threads.submit(bond.check) for bond in bonds]:
            job.result()
    assert db.bonds.count_documents({"kept": True}) == 1


def test_a_database_older_than_marks_is_not_bound_to_a_folder_without_its_spools(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    assert post_batch(make_client(mongo, blobs_root), [image_payload(make_image(1))]).status_code == 202
    db.bonds.delete_many({})
    LocalBlobs(blobs_root).delete(IDENTITY)
    away = blobs_root.with_name("away")
    blobs_root.rename(away)
    with pytest.raises(StoreAway):
        StoreIdentity(db, LocalBlobs(blobs_root)).check()
    assert db.bonds.count_documents({}) == 0
    StoreIdentity(db, LocalBlobs(away)).check()


def test_nothing_is_accepted_into_a_store_that_is_not_the_databases(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    web = make_client(mongo, blobs_root)
    accepted = post_batch(web, [image_payload(make_image(1))])
    assert accepted.status_code == 202
    shutil.rmtree(blobs_root)
    refused = post_batch(web, [image_payload(make_image(2))])
    assert (refused.status_code, refused.get_json()["code"]) == (503, "blobs_unavailable")
    assert db.batches.count_documents({}) == 1
    shown = web.get(accepted.get_json()["images"][0]["file_path"])
    assert (shown.status_code, shown.get_json()["code"]) == (503, "blobs_unavailable")
    checks = web.get("/readyz").get_json()["checks"]
    assert not checks["blobs"]["ok"]
