"""Database and blob store belong together: with another blob store, or with one that is not mounted, nothing is lost."""

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


def test_both_get_an_identity_once_and_every_later_process_finds_it(db: Db, tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    first = StoreIdentity(db, blobs)
    first.check()
    identity = blobs.read(IDENTITY)
    assert len(identity) == 32
    first.check()
    StoreIdentity(db, blobs).check()
    assert blobs.read(IDENTITY) == identity


def test_a_blob_store_without_the_identity_is_refused_until_it_is_back_and_the_log_says_what_to_do(
    db: Db, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, moved = tmp_path / "blobs", tmp_path / "moved"
    identity = StoreIdentity(db, LocalBlobs(root))
    identity.check()
    root.rename(moved)  # as if its volume were not mounted
    root.mkdir()
    with caplog.at_level(logging.CRITICAL, "shelfsight.error"):
        for checked in (identity, identity, StoreIdentity(db, LocalBlobs(root))):
            with pytest.raises(StoreAway) as raised:
                checked.check()
            assert raised.value.code == "blobs_unavailable"
            assert str(root) not in raised.value.detail
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2  # one from each instance; a process has one instance
    assert "Check that the volume is mounted." in messages[0]
    root.rmdir()
    moved.rename(root)
    identity.check()


def test_a_blob_store_of_another_database_is_refused(db: Db, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    blobs.write(IDENTITY, [b"f" * 32])
    with pytest.raises(StoreAway):
        StoreIdentity(db, blobs).check()
    assert "another database" in caplog.text
    assert db.bonds.count_documents({}) == 0
    blobs.delete(IDENTITY)
    StoreIdentity(db, blobs).check()


def test_a_disk_that_is_full_at_the_first_start_leaves_no_identity_behind(
    db: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")

    def full(*_: object) -> None:
        raise DiskFull("There is no room left for files.")

    with monkeypatch.context() as patched:
        patched.setattr(blobs, "write", full)
        with pytest.raises(DiskFull):
            StoreIdentity(db, blobs).check()
    StoreIdentity(db, blobs).check()


def test_the_next_start_completes_an_interrupted_one(db: Db, tmp_path: Path) -> None:
    db.bonds.insert_one({"_id": "blobs", "mark": "a" * 32, "kept": False})
    blobs = LocalBlobs(tmp_path / "blobs")
    StoreIdentity(db, blobs).check()
    assert blobs.read(IDENTITY) == b"a" * 32
    assert db.bonds.count_documents({"kept": True}) == 1


def test_an_identity_changed_by_hand_in_both_is_accepted_without_a_restart(db: Db, tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    identity = StoreIdentity(db, blobs)
    identity.check()
    db.bonds.update_one({}, {"$set": {"mark": "b" * 32}})
    blobs.write(IDENTITY, [b"b" * 32 + b"\n"])
    identity.check()


def test_many_processes_that_start_concurrently_agree(db: Db, tmp_path: Path) -> None:
    identities = [StoreIdentity(db, LocalBlobs(tmp_path / "blobs")) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        for job in [threads.submit(identity.check) for identity in identities]:
            job.result()
    assert db.bonds.count_documents({"kept": True}) == 1


def test_a_database_without_an_identity_is_not_tied_to_a_folder_without_its_spools(
    db: Db, mongo: settings.Mongo, blobs_root: Path
) -> None:
    assert post_batch(make_client(mongo, blobs_root), [image_payload(make_image(1))]).status_code == 202
    db.bonds.delete_many({})
    LocalBlobs(blobs_root).delete(IDENTITY)
    moved = blobs_root.with_name("moved")
    blobs_root.rename(moved)
    with pytest.raises(StoreAway):
        StoreIdentity(db, LocalBlobs(blobs_root)).check()
    assert db.bonds.count_documents({}) == 0
    StoreIdentity(db, LocalBlobs(moved)).check()


def test_nothing_is_accepted_into_the_blob_store_of_another_database(
    db: Db, mongo: settings.Mongo, blobs_root: Path
) -> None:
    web = make_client(mongo, blobs_root)
    accepted = post_batch(web, [image_payload(make_image(1))])
    assert accepted.status_code == 202
    shutil.rmtree(blobs_root)
    response = post_batch(web, [image_payload(make_image(2))])
    assert (response.status_code, response.get_json()["code"]) == (503, "blobs_unavailable")
    assert db.batches.count_documents({}) == 1
    file = web.get(accepted.get_json()["images"][0]["file_path"])
    assert (file.status_code, file.get_json()["code"]) == (503, "blobs_unavailable")
    checks = web.get("/readyz").get_json()["checks"]
    assert not checks["blobs"]["ok"]
