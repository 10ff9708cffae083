"""A deletion of one image is ended by the sweep if the request died, and a worker that holds the image writes nothing that stays."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared import failpoints
from shared.bootstrap import Stores
from shared.catalog import image_deletion
from shared.ledger import audit, deletion, original_checks, settlement, sums, tag_counts
from shared.storage.blob_keys import image_prefix, original_key, spool_key, variant_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import run, upload
from tests.support.ledger import commit_new_batch, utc_now
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import ImagePipeline
from worker.spools import originals
from worker.spools.settlement import settle
from worker.sweep.sweep import Sweep

pytestmark = pytest.mark.slow


def upload_two(web: FlaskClient, db: Db) -> tuple[str, str]:
    """Upload a batch with two images, and return their ids."""
    first, second = upload(web, db, [image_payload(make_image(at)) for at in range(2)])["images"]
    return first["id"], second["id"]


def files_of(blobs_root: Path, image_id: str) -> list[Path]:
    """Return the folder and the original of an image, if they exist, and what is in the folder."""
    folder = blobs_root / image_prefix(image_id)
    return [*folder.parent.glob(f"{folder.name}*"), *folder.rglob("*")]


def let_the_lease_pass(db: Db) -> None:
    db.images.update_many({"status": "deleting"}, {"$set": {"deleting_at": utc_now() - timedelta(hours=1)}})
    time.sleep(0.02)  # longer than the interval of the clean-ups


def test_a_deletion_that_was_broken_off_is_ended(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, stores: Stores, blobs: LocalBlobs, blobs_root: Path
) -> None:
    first, second = upload_two(web, db)
    run(pipeline)
    image_deletion.begin_delete(db, first, None)  # the files stay, as if the web process was killed at this point
    assert files_of(blobs_root, first)
    sweep = Sweep(stores)
    sweep.tick()
    assert not files_of(blobs_root, first)
    assert db.images.count_documents({"uncleared": True}) == 0
    blobs.write(variant_key(first, 1, "thumb"), [b"from a frozen worker"])
    blobs.write(original_key(first, "jpg"), [b"from a frozen worker"])
    time.sleep(0.02)
    sweep.tick()
    assert files_of(blobs_root, first)  # only once more, when no worker can write any more
    let_the_lease_pass(db)
    sweep.tick()
    assert not files_of(blobs_root, first)
    assert [image["_id"] for image in db.images.find()] == [second]
    assert files_of(blobs_root, second)
    assert audit.balance(db) == {"received": 2, "done": 1, "failed": 0, "cancelled": 0, "pending": 0, "deleted": 1}


def test_the_sweep_closes_a_batch_whose_last_pending_image_was_deleted(web: FlaskClient, db: Db, stores: Stores) -> None:
    first, second = upload_two(web, db)
    db.images.update_one({"_id": first}, {"$set": {"status": "done"}})
    image_deletion.begin_delete(db, second, None)
    Sweep(stores).tick()
    batch = db.batches.find_one({}) or {}
    assert (batch["status"], batch["total"], batch["counts"]["done"]) == ("done", 1, 1)


@pytest.mark.parametrize("failpoint", ["4-claimed", "5-original-kept", "5-variants-written", "6-before-finish", "6-finished"])
def test_a_worker_that_holds_a_deleted_image_leaves_nothing(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, stores: Stores, blobs_root: Path, failpoint: str
) -> None:
    first, second = upload_two(web, db)

    def delete(name: str) -> None:
        if name == failpoint:
            failpoints.install(None)
            assert web.delete(f"/images/{first}").status_code == 204

    failpoints.install(delete)
    try:
        run(pipeline)
    finally:
        failpoints.install(None)
    Sweep(stores).tick()
    let_the_lease_pass(db)
    Sweep(stores).tick()
    assert not files_of(blobs_root, first)
    assert [(image["_id"], image["status"]) for image in db.images.find()] == [(second, "done")]
    batch = web.get(f"/image_batches/{first[:32]}").get_json()
    assert (batch["status"], batch["total"], batch["counts"]["done"]) == ("done", 1, 1)
    assert sums.count_missing(audit.balance(db)) == 0
    assert web.get(f"/uploads/{second}.jpg").data == make_image(1)


@pytest.mark.usefixtures("without_settling")
def test_a_spool_is_settled_without_the_deleted_image(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, stores: Stores, blobs: LocalBlobs, blobs_root: Path
) -> None:
    first, second = upload_two(web, db)
    run(pipeline)
    blobs.delete(original_key(second, "jpg"))
    web.delete(f"/images/{first}")
    assert settle(stores, [first[:32]]) == {first[:32]}
    assert blobs.stat(spool_key(first[:32])) is None
    assert not files_of(blobs_root, first)
    assert web.get(f"/uploads/{second}.jpg").data == make_image(1)


@pytest.mark.usefixtures("without_settling")
def test_an_image_that_is_deleted_while_its_spool_is_settled_is_not_restored(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, stores: Stores, blobs_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = upload_two(web, db)
    run(pipeline)
    has_right_size = originals.has_right_size

    def delete_before(*arguments: object) -> bool:
        monkeypatch.undo()
        assert web.delete(f"/images/{first}").status_code == 204
        return has_right_size(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(originals, "has_right_size", delete_before)
    assert settle(stores, [first[:32]]) == {first[:32]}
    assert not files_of(blobs_root, first)
    assert caplog.records == []


@pytest.mark.usefixtures("without_settling")
def test_an_image_that_is_deleted_while_its_original_is_restored_has_no_file(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, stores: Stores, blobs: LocalBlobs, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = upload_two(web, db)
    run(pipeline)
    blobs.delete(original_key(first, "jpg"))
    read_from_spool = originals.read_from_spool

    def delete_before(*arguments: object) -> bytes | None:
        assert web.delete(f"/images/{first}").status_code == 204
        return read_from_spool(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(originals, "read_from_spool", delete_before)
    settle(stores, [first[:32]])
    assert not files_of(blobs_root, first)
    assert settle(stores, [first[:32]]) == {first[:32]}
    assert blobs.stat(spool_key(first[:32])) is None


def test_the_original_of_a_deleted_image_is_not_checked_and_not_missed(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, stores: Stores
) -> None:
    first, second = upload_two(web, db)
    run(pipeline)
    settle(stores, [first[:32]])
    image = next(settlement.read_images(db, [first[:32]]))
    assert originals.is_lost(stores, image)
    web.delete(f"/images/{first}")
    assert {(original_checks.choose_image(db) or {})["_id"] for _ in range(20)} == {second}
    assert not originals.is_lost(stores, image)


def test_the_claims_read_only_index_entries_of_images_that_are_due(db: Db) -> None:
    """Deleted images whose files are gone must not slow down the sweep, and neither must all others."""
    batch_id = commit_new_batch(db, images=130)
    for index in range(100):
        image_deletion.begin_delete(db, f"{batch_id}{index:04x}", None)
        image_deletion.mark_files_deleted(db, f"{batch_id}{index:04x}")
    last = f"{batch_id}{100:04x}"
    image_deletion.begin_delete(db, last, None)
    db.command("profile", 2)
    try:
        assert image_deletion.claim_with_files(db) == last
        assert image_deletion.claim_deletable(db, 30) is None
    finally:
        db.command("profile", 0)
    entries = list(db["system.profile"].find({"command.findAndModify": "images"}))
    assert len(entries) == 2
    assert max(max(entry["keysExamined"], entry["docsExamined"]) for entry in entries) <= 2


def test_the_sweep_soon_removes_the_rest_of_a_deleted_batch_from_the_counts_of_tags(db: Db, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tag_counts, "_MAX_PAIRS", 2)
    batch_id = commit_new_batch(db, 6)
    db.images.update_many({}, {"$set": {"tags": [{"id": tag, "by": None, "at": utc_now()} for tag in "abc"]}})
    db.tag_counts.insert_many([{"_id": f"{tag}:north", "tag": tag, "store": "north", "n": 6} for tag in "abc"])
    deletion.begin_delete(db, batch_id, None)
    assert sum(row["n"] for row in db.tag_counts.find()) == 15
    Sweep(stores).tick()
    assert sum(row["n"] for row in db.tag_counts.find()) == 0
    assert db.images.count_documents({}) == 6
