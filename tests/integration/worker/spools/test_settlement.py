"""Tests that a spool is deleted only when every original is stored, whoever settles it and whatever interrupts that."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared import failpoints
from shared.bootstrap import Stores, open_stores
from shared.errors import StoreAway
from shared.ledger import settlement as ledger
from shared.settings import Settings
from shared.storage.blob_keys import IDENTITY, batch_prefix, original_key, spool_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import Killed, run, upload
from tests.support.service_stack import wait_until
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import ImagePipeline
from worker.spools import originals
from worker.spools.settlement import settle

pytestmark = pytest.mark.slow
Damage = Callable[[LocalBlobs, str], None]


@pytest.fixture
def stores(worker_settings: Settings, db: Db, blobs: LocalBlobs) -> Stores:
    return open_stores(worker_settings, app="test", db=db, blobs=blobs)


def upload_two(web: FlaskClient, db: Db) -> Any:
    return upload(web, db, [image_payload(make_image(1)), image_payload(make_image(2))])


def close(db: Db, status: str = "done", **fields: object) -> None:
    """Close all batches. Their images get a state, and ``fields``."""
    db.images.update_many({}, {"$set": {"status": status, **fields}})
    db.batches.update_many({}, {"$unset": {"open": ""}, "$currentDate": {"finished_at": True}})


def is_settled(db: Db, blobs: LocalBlobs, batch_id: str) -> bool:
    """Return whether the spool is deleted and no process has to look at the batch again."""
    marked = db.batches.count_documents({"_id": batch_id, "spooled": {"$exists": True}})
    return not marked and blobs.stat(spool_key(batch_id)) is None


def record_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the keys of all blobs that are opened from now on are added."""
    opened: list[str] = []
    open_blob = LocalBlobs.open

    def record(self: LocalBlobs, key: str) -> Any:
        opened.append(key)
        return open_blob(self, key)

    monkeypatch.setattr(LocalBlobs, "open", record)
    return opened


def test_the_worker_that_closes_a_batch_settles_its_spool(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs
) -> None:
    batch_id = upload_two(web, db)["batch_id"]
    run(pipeline)
    wait_until(lambda: is_settled(db, blobs, batch_id))
    wait_until(lambda: db.batches.find_one({"unswept": True}) is None)  # each image was claimed once


@pytest.mark.usefixtures("without_settling")
def test_originals_that_the_worker_has_verified_are_not_read_again(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = upload_two(web, db)["batch_id"]
    run(pipeline)
    opened = record_reads(monkeypatch)
    assert settle(stores, [batch_id]) == {batch_id}
    assert set(opened) == {IDENTITY}
    assert is_settled(db, blobs, batch_id)


def remove(blobs: LocalBlobs, key: str) -> None:
    blobs.delete(key)


def shorten(blobs: LocalBlobs, key: str) -> None:
    blobs.write(key, [blobs.read(key)[:-1]])


def change_bytes(blobs: LocalBlobs, key: str) -> None:
    blobs.write(key, [b"x" * len(blobs.read(key))])


@pytest.mark.usefixtures("without_settling")
@pytest.mark.parametrize(
    ("damage", "stored_by"), [(remove, "this release"), (shorten, "this release"), (remove, "the last"), (change_bytes, "the last")]
)
def test_a_missing_or_damaged_original_is_restored_from_the_spool(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, stores: Stores, damage: Damage, stored_by: str
) -> None:
    accepted = upload_two(web, db)
    run(pipeline)
    if stored_by == "the last":  # it did not record that the originals are stored, so they are hashed
        db.images.update_many({}, {"$unset": {"work.stored": ""}})
    damage(blobs, original_key(accepted["images"][1]["id"], "jpg"))
    settle(stores, [accepted["batch_id"]])
    assert [web.get(image["file_path"]).data for image in accepted["images"]] == [make_image(1), make_image(2)]
    assert is_settled(db, blobs, accepted["batch_id"])


def test_an_image_that_ended_without_an_original_gets_it_from_the_spool(
    web: FlaskClient, db: Db, blobs: LocalBlobs, stores: Stores
) -> None:
    accepted = upload_two(web, db)
    close(db, "cancelled")
    settle(stores, [accepted["batch_id"]])
    kept = [blobs.read(original_key(image["id"], "jpg")) for image in accepted["images"]]
    assert kept == [make_image(1), make_image(2)]
    assert is_settled(db, blobs, accepted["batch_id"])


@pytest.mark.usefixtures("without_settling")
def test_a_spool_with_an_unfinished_image_is_kept(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, stores: Stores
) -> None:
    accepted, finished = upload_two(web, db), upload_two(web, db)
    run(pipeline)
    db.images.update_one({"_id": accepted["images"][1]["id"]}, {"$set": {"status": "queued"}})
    assert settle(stores, [accepted["batch_id"], finished["batch_id"]]) == {finished["batch_id"]}
    assert blobs.stat(spool_key(accepted["batch_id"])) is not None
    assert db.batches.count_documents({"_id": accepted["batch_id"], "spooled": True}) == 1


@pytest.mark.usefixtures("without_settling")
def test_a_spool_without_image_documents_is_kept_and_reported(
    web: FlaskClient, db: Db, blobs: LocalBlobs, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    batch_id = upload_two(web, db)["batch_id"]
    close(db)
    db.images.delete_many({})
    assert settle(stores, [batch_id]) == {batch_id}
    assert blobs.stat(spool_key(batch_id)) is not None
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]


@pytest.mark.usefixtures("without_settling")
def test_nothing_is_reported_lost_if_the_batch_is_deleted_meanwhile(
    web: FlaskClient,
    db: Db,
    pipeline: ImagePipeline,
    stores: Stores,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    accepted = upload_two(web, db)
    run(pipeline)
    read_images = ledger.read_images

    def delete_then_return(*arguments: Any) -> Any:
        images = list(read_images(*arguments))
        assert web.delete(accepted["links"]["self"]).status_code == 204
        return iter(images)

    caplog.clear()
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "read_images", delete_then_return)
        assert settle(stores, [accepted["batch_id"]]) == set()
    assert settle(stores, ["0" * 32]) == set()
    assert caplog.records == []


@pytest.mark.usefixtures("without_settling")
@pytest.mark.parametrize("at", ["check", "read", "write"])
def test_no_original_is_restored_that_a_deletion_has_just_removed(
    web: FlaskClient,
    db: Db,
    pipeline: ImagePipeline,
    blobs: LocalBlobs,
    stores: Stores,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    at: str,
) -> None:
    """In a deletion, the original can be missing before the spool is. The settlement is interrupted at each step."""
    accepted = upload_two(web, db)
    run(pipeline)
    batch_id = accepted["batch_id"]
    spool, first = blobs.read(spool_key(batch_id)), original_key(accepted["images"][0]["id"], "jpg")
    if at != "check":  # the settlement restores this original, and meanwhile the batch is deleted
        blobs.delete(first)
    method, key = {"check": ("stat", first), "read": ("read", spool_key(batch_id)), "write": ("write_many", first)}[at]
    call = getattr(LocalBlobs, method)

    def delete_then_call(self: LocalBlobs, called_key: Any, *arguments: Any) -> Any:
        called = called_key if isinstance(called_key, str) else called_key[0][0]
        if called == key and db.batches.count_documents({"deleting": True}) == 0:
            assert web.delete(accepted["links"]["self"]).status_code == 204
            blobs.write(spool_key(batch_id), [spool])  # as if the deletion had not come to it yet
        return call(self, called_key, *arguments)

    monkeypatch.setattr(LocalBlobs, method, delete_then_call)
    caplog.clear()
    assert settle(stores, [batch_id]) == set()
    assert db.batches.count_documents({"deleting": True}) == 1
    assert list(blobs.list(batch_prefix(batch_id))) == []
    assert caplog.records == []


@pytest.mark.usefixtures("without_settling")
def test_nothing_is_deleted_or_recorded_in_the_blob_store_of_another_database(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, stores: Stores
) -> None:
    batch_id = upload_two(web, db)["batch_id"]
    run(pipeline)
    blobs.write(IDENTITY, [b"another identity"])
    with pytest.raises(StoreAway):
        settle(stores, [batch_id])
    assert blobs.stat(spool_key(batch_id)) is not None
    assert db.batches.count_documents({"spooled": True}) == 1


@pytest.mark.usefixtures("without_settling")
def test_a_blob_store_that_disappears_while_it_is_checked_loses_nothing(
    web: FlaskClient,
    db: Db,
    pipeline: ImagePipeline,
    blobs: LocalBlobs,
    stores: Stores,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    batch_id = upload_two(web, db)["batch_id"]
    run(pipeline)
    check = originals.has_right_size

    def unmount_first(*arguments: Any) -> bool:
        if blobs._root.exists():
            blobs._root.rename(away)
        return check(*arguments)

    away = blobs._root.with_name("away")
    with monkeypatch.context() as patched:
        patched.setattr(originals, "has_right_size", unmount_first)
        caplog.clear()
        assert settle(stores, [batch_id]) == set()
    assert [record.message for record in caplog.records if "original" in record.message] == []
    assert db.batches.count_documents({"spooled": True}) == 1
    away.rename(blobs._root)
    settle(stores, [batch_id])
    assert is_settled(db, blobs, batch_id)


@pytest.mark.usefixtures("without_settling")
@pytest.mark.parametrize("at", ["restore", "delete", "record"])
def test_a_settlement_that_was_killed_is_repeated(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, stores: Stores, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    accepted = upload_two(web, db)
    run(pipeline)
    blobs.delete(original_key(accepted["images"][0]["id"], "jpg"))

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        if at == "restore":
            patched.setattr(LocalBlobs, "write_many", kill)
        elif at == "delete":
            failpoints.install(lambda name: kill() if name == "9-before-spool-delete" else None)
        else:
            patched.setattr(ledger, "record_settled", kill)
        try:
            with pytest.raises(Killed):
                settle(stores, [accepted["batch_id"]])
        finally:
            failpoints.install(None)
    assert db.batches.count_documents({"spooled": True}) == 1
    settle(stores, [accepted["batch_id"]])
    assert is_settled(db, blobs, accepted["batch_id"])
    assert [web.get(image["file_path"]).data for image in accepted["images"]] == [make_image(1), make_image(2)]


@pytest.mark.usefixtures("without_settling")
def test_an_unreadable_original_keeps_its_own_spool_only(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [upload_two(web, db) for _ in range(3)]
    run(pipeline)
    unreadable, stat = original_key(batches[0]["images"][1]["id"], "jpg"), LocalBlobs.stat

    def fail_once(self: LocalBlobs, key: str) -> Any:
        if key == unreadable:
            raise StoreAway("an input/output error")
        return stat(self, key)

    with monkeypatch.context() as patched:
        patched.setattr(LocalBlobs, "stat", fail_once)
        ids = [batch["batch_id"] for batch in batches]
        assert settle(stores, ids) == set(ids[1:])
    assert [is_settled(db, blobs, batch_id) for batch_id in ids] == [False, True, True]
    settle(stores, ids)
    assert is_settled(db, blobs, ids[0])


@pytest.mark.usefixtures("without_settling")
def test_only_a_batch_with_an_image_that_was_claimed_again_is_searched_for_files_of_lost_claims(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, stores: Stores
) -> None:
    once, again = upload_two(web, db), upload_two(web, db)
    run(pipeline)
    db.images.update_one({"_id": again["images"][1]["id"]}, {"$set": {"work.fence": 2}})
    settle(stores, [once["batch_id"], again["batch_id"]])
    assert [batch["_id"] for batch in db.batches.find({"unswept": True})] == [again["batch_id"]]
    assert db.batches.count_documents({"spooled": {"$exists": True}}) == 0
