"""Images are processed again by a real worker: what the service shows meanwhile and afterwards, and which files are left."""

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.bootstrap import Stores
from shared.ledger import results, settlement
from shared.storage.blob_keys import image_prefix, original_key, spool_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.images.reprocessed_batches import (
    VARIANTS,
    code_of,
    list_folders,
    post,
    read_files,
    read_live,
    upload_batch,
)
from tests.integration.worker.running import count, run, upload
from tests.support.ledger import finish_earlier
from tests.support.web_client import image_payload, make_image
from worker.images.group_writer import GroupWriter
from worker.images.pipeline import ImagePipeline
from worker.spools.settlement import settle
from worker.sweep.sweep import Sweep


def test_old_files_are_served_until_the_new_result_is_stored_and_deleted_after_the_longest_write(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs_root: Path, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload_batch(web, db)
    run(pipeline)
    before = read_files(web, batch)
    assert post(web, batch["batch_id"], "reprocess", {"only": "all", "augmentations": ["grayscale"], "detect": False}) == {"queued": 2, "generation": 1}
    assert read_files(web, batch) == before
    first = batch["images"][0]["id"]
    coming = web.get(f"/uploads/{first}/grayscale.jpg")
    assert (coming.status_code, coming.get_json()["code"], coming.headers.get("Retry-After")) == (404, "not_found", None)
    assert coming.get_json()["detail"] == "This augmentation does not exist yet. The image is being processed again, and the new result will have it."
    assert "nobody has requested it" in web.get(f"/uploads/{first}/noise.jpg").get_json()["detail"]
    write = GroupWriter.write

    def write_and_look(writer: GroupWriter, group: Any) -> set[str]:
        assert count(db) == {"processing": 2}
        assert read_files(web, batch) == before
        assert code_of(web, f"/uploads/{first}/grayscale.jpg") == "not_found"
        return write(writer, group)

    monkeypatch.setattr(GroupWriter, "write", write_and_look)
    run(pipeline)
    after = read_files(web, batch, ("thumb", "boxes", "grayscale"))
    shown = web.get(f"/image_batches/{batch['batch_id']}").get_json()
    assert shown["status"] == "done"
    assert [([made["name"] for made in image["augmentations"]], image["model"], image["detections"]) for image in shown["images"]] == [(["grayscale"], None, [])] * 2
    assert after.keys() != before.keys()
    assert web.get(f"/uploads/{first}/rotate.jpg").get_json()["code"] == "not_found"
    assert list_folders(blobs_root, batch) == [{"1", "2"}] * 2
    assert read_live(blobs_root, batch) == {"2"}
    sweep = Sweep(stores)
    sweep.tick()
    assert list_folders(blobs_root, batch) == [{"1", "2"}] * 2
    finish_earlier(db, 3600)
    sweep.tick()
    assert list_folders(blobs_root, batch) == [{"2"}] * 2
    assert read_files(web, batch, ("thumb", "boxes", "grayscale")) == after
    assert db.batches.count_documents({"unswept": True}) == db.batches.count_documents({"spooled": True}) == 0


def test_images_without_a_result_are_never_pending_once_they_are_queued_again(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = [image_payload(make_image(0, (64, 48), "PNG")[:200]), image_payload(make_image(1)[:200])]
    failed, cancelled = (upload(web, db, {"images": payload, "augmentations": ["rotate"]}) for _ in range(2))
    post(web, cancelled["batch_id"], "cancel")
    run(pipeline)
    assert count(db) == {"failed": 2, "cancelled": 2}
    expected: dict[str, tuple[int, str, str | None, str]] = {}
    for batch, code, happened in ((failed, "image_failed", "This image could not be processed."), (cancelled, "image_cancelled", "The processing of this image was cancelled.")):
        for image, extension in zip(batch["images"], ("png", "jpg"), strict=True):
            names = (*VARIANTS, "grayscale", "noise")
            paths = [f"/uploads/{image['id']}/{name}.jpg" for name in names] + [f"/uploads/{image['id']}.jpg"] * (extension == "png")
            expected |= dict.fromkeys(paths, (404, code, None, f"{happened} Its original is at /uploads/{image['id']}.{extension}."))
            assert web.get(f"/uploads/{image['id']}.{extension}").status_code == 200

    def look() -> dict[str, tuple[int, str, str | None, str]]:
        responses = {path: web.get(path) for path in expected}
        return {path: (found.status_code, found.get_json()["code"], found.headers.get("Retry-After"), found.get_json()["detail"]) for path, found in responses.items()}

    assert look() == expected
    for batch in (failed, cancelled):
        post(web, batch["batch_id"], "reprocess", {"only": "all", "augmentations": ["grayscale"]})
    assert count(db) == {"queued": 4}
    assert look() == expected
    post(web, cancelled["batch_id"], "cancel")
    assert look() == expected
    post(web, cancelled["batch_id"], "reprocess", {"only": "all"})
    finish, looks = results.finish, []

    def look_and_finish(*arguments: Any, **options: Any) -> Any:
        looks.append(look())
        return finish(*arguments, **options)

    monkeypatch.setattr(results, "finish", look_and_finish)
    run(pipeline)
    assert looks[0] == expected
    assert {code for found in looks for _, code, _, _ in found.values()} == {"image_failed", "image_cancelled"}
    assert {code for _, code, _, _ in look().values()} == {"image_failed"}


def test_an_original_that_is_gone_is_not_pending_while_the_image_is_queued_again(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, stores: Stores
) -> None:
    batch = upload_batch(web, db, 1)
    run(pipeline)
    settle(stores, [batch["batch_id"]])
    post(web, batch["batch_id"], "reprocess", {"only": "all"})
    path = f"/uploads/{batch['images'][0]['id']}.png"
    assert web.get(path).status_code == 200
    blobs.delete(original_key(batch["images"][0]["id"], "png"))
    assert code_of(web, path) == "not_found"


def test_an_original_that_is_stored_while_the_spool_is_opened_is_served(
    web: FlaskClient, db: Db, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload_batch(web, db, 1)
    post(web, batch["batch_id"], "cancel")
    image_id = batch["images"][0]["id"]
    read = LocalBlobs.read

    def store_original_and_read(self: LocalBlobs, key: str, *arguments: Any) -> bytes:
        blobs.write(original_key(image_id, "png"), [make_image(0, (64, 48), "PNG")])
        blobs.delete(spool_key(batch["batch_id"]))
        return read(self, key, *arguments)

    monkeypatch.setattr(LocalBlobs, "read", store_original_and_read)
    assert web.get(f"/uploads/{image_id}.png").data == make_image(0, (64, 48), "PNG")


def test_a_reprocessing_whose_originals_are_gone_leaves_the_old_results_and_files(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, blobs_root: Path, stores: Stores
) -> None:
    batch = upload_batch(web, db, 1)
    run(pipeline)
    settle(stores, [batch["batch_id"]])
    image_id = batch["images"][0]["id"]
    before = {name: web.get(f"/uploads/{image_id}/{name}.jpg").data for name in VARIANTS}
    blobs.delete(original_key(image_id, "png"))
    post(web, batch["batch_id"], "reprocess", {"only": "all"})
    run(pipeline)
    image = web.get(f"/images/{image_id}").get_json()
    assert (image["status"], image["error"]) == ("done", None)
    assert {name: web.get(f"/uploads/{image_id}/{name}.jpg").data for name in VARIANTS} == before
    finish_earlier(db, 3600)
    Sweep(stores).tick()
    assert list_folders(blobs_root, batch) == [{"1"}]


def test_the_files_of_a_newly_raised_fence_are_left_while_old_ones_are_deleted(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, blobs_root: Path, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload_batch(web, db)
    for _ in range(2):
        run(pipeline)
        post(web, batch["batch_id"], "reprocess", {"only": "all"})
    run(pipeline)
    settle(stores, [batch["batch_id"]])
    finish_earlier(db, 3600)
    folders = LocalBlobs.folders

    def folders_after_another_result(self: LocalBlobs, prefix: str) -> Any:
        """Process the images again between the moment when the sweep reads their fences and when it lists their folders."""
        if "/000" in prefix and db.batches.find_one({"generation": 2}) is not None:
            post(web, batch["batch_id"], "reprocess", {"only": "all"})
            run(pipeline)
        return folders(self, prefix)

    monkeypatch.setattr(LocalBlobs, "folders", folders_after_another_result)
    Sweep(stores).tick()
    assert [names - {"1", "2"} for names in list_folders(blobs_root, batch)] in ([{"3", "4"}, {"3", "4"}], [{"3", "4"}, {"4"}])
    read_files(web, batch)
    assert db.batches.count_documents({"unswept": True}) == 1  # it comes again
    monkeypatch.setattr(LocalBlobs, "folders", folders)
    finish_earlier(db, 3600)
    Sweep(stores).tick()
    assert list_folders(blobs_root, batch) == [{"4"}] * 2


def test_a_file_that_is_replaced_and_deleted_while_it_is_opened_is_served_from_the_new_result(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload_batch(web, db, 1)
    run(pipeline)
    post(web, batch["batch_id"], "reprocess", {"only": "all", "augmentations": ["grayscale"]})
    open_blob = LocalBlobs.open

    def replace_and_open(self: LocalBlobs, key: str) -> Any:
        if "/1/" in key:
            run(pipeline)
            settle(stores, [batch["batch_id"]])
            finish_earlier(db, 3600)
            Sweep(stores).tick()
        return open_blob(self, key)

    monkeypatch.setattr(LocalBlobs, "open", replace_and_open)
    served = web.get(f"/uploads/{batch['images'][0]['id']}/thumb.jpg")
    assert (served.status_code, served.data[:2]) == (200, b"\xff\xd8")
    assert web.get(f"/uploads/{batch['images'][0]['id']}/grayscale.jpg").status_code == 200
    assert web.get(f"/uploads/{batch['images'][0]['id']}/rotate.jpg").status_code == 404


def test_a_late_publication_of_an_old_result_is_corrected(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, blobs_root: Path, stores: Stores
) -> None:
    batch = upload_batch(web, db)
    run(pipeline)
    post(web, batch["batch_id"], "reprocess", {"only": "all"})
    run(pipeline)
    for image in batch["images"]:
        blobs.publish(image_prefix(image["id"]), "1")  # by a worker that was frozen since its result was stored
    finish_earlier(db, 3600)
    Sweep(stores).tick()
    assert read_live(blobs_root, batch) == {"2"}
    assert list_folders(blobs_root, batch) == [{"2"}] * 2


@pytest.mark.usefixtures("without_settling")
def test_a_result_that_a_dead_worker_has_not_published_is_published_with_the_settlement(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs_root: Path, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload_batch(web, db)
    run(pipeline)
    settle(stores, [batch["batch_id"]])
    post(web, batch["batch_id"], "reprocess", {"only": "all"})
    monkeypatch.setattr(GroupWriter, "_publish", lambda *_: None)
    run(pipeline)
    assert read_live(blobs_root, batch) == {"1"}
    finish_earlier(db, 60)
    Sweep(stores).tick()
    assert read_live(blobs_root, batch) == {"2"}


def test_a_batch_that_was_reprocessed_since_the_sweep_claimed_it_is_cleaned_after_the_longest_write(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs_root: Path, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload_batch(web, db)
    run(pipeline)
    post(web, batch["batch_id"], "reprocess", {"only": "all"})
    run(pipeline)
    finish_earlier(db, 3600)
    claim = settlement.claim_unswept

    def claim_and_freeze(*arguments: Any) -> str | None:
        claimed = claim(*arguments)
        if claimed is not None:
            post(web, batch["batch_id"], "reprocess", {"only": "all"})
            run(pipeline)
        return claimed

    monkeypatch.setattr(settlement, "claim_unswept", claim_and_freeze)
    Sweep(stores).tick()
    assert list_folders(blobs_root, batch) == [{"1", "2", "3"}] * 2
    assert db.batches.count_documents({"unswept": True}) == 1
