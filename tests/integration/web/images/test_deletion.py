"""Deleting one image: what remains of its batch, and its files."""

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.catalog import image_deletion
from shared.ledger import audit, closing, sums
from shared.storage.blob_keys import batch_prefix, image_prefix, original_key, spool_key, variant_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.support.accounts import bearer, make_key
from tests.support.ledger import process_all, validate_documents
from tests.support.web_client import image_payload, make_image, open_services, post_batch


@pytest.fixture
def blobs(blobs_root: Path) -> LocalBlobs:
    return LocalBlobs(blobs_root)


def upload(web: FlaskClient, stores: tuple[str, ...] = ("north", "north", "south"), headers: dict[str, str] | None = None) -> list[str]:
    """Upload a batch with an image of each store, and return the ids of the images."""
    accepted = post_batch(web, [image_payload(make_image(at), store_name=store) for at, store in enumerate(stores)], **(headers or {}))
    return [image["id"] for image in accepted.get_json()["images"]]


def finish(db: Db, *image_ids: str, status: str = "done") -> None:
    """Give images a result, as a worker does."""
    db.images.update_many({"_id": {"$in": list(image_ids)}}, {"$set": {"status": status, "work.fence": 1}})


def shown(web: FlaskClient, image_id: str) -> Any:
    return web.get(f"/image_batches/{image_id[:32]}").get_json()


def is_balanced(db: Db) -> bool:
    return sums.count_missing(audit.balance(db)) == 0


def test_a_deleted_image_is_gone_and_its_batch_has_the_others(web: FlaskClient, db: Db) -> None:
    first, second, third = upload(web)
    assert web.delete(f"/images/{second}").status_code == 204
    for response in (web.get(f"/images/{second}"), web.delete(f"/images/{second}"), web.patch(f"/images/{second}", json={}), web.get(f"/uploads/{second}.jpg")):
        assert (response.status_code, response.get_json(force=True)["code"]) == (404, "not_found")
    batch = shown(web, first)
    assert [image["id"] for image in batch["images"]] == [first, third]
    assert (batch["total"], batch["status"], batch["counts"]["queued"]) == (2, "queued", 2)
    assert audit.balance(db) == {"received": 3, "done": 0, "failed": 0, "cancelled": 0, "pending": 2, "deleted": 1}
    validate_documents(db)


def test_the_last_image_of_a_store_takes_its_batch_out_of_the_list_of_the_store(web: FlaskClient, db: Db) -> None:
    *_, south = upload(web)
    assert web.get("/image_batches?store_name=south").get_json()["total"] == 1
    web.delete(f"/images/{south}")
    assert web.get("/image_batches?store_name=south").get_json()["total"] == 0
    assert web.get("/image_batches?store_name=north").get_json()["total"] == 1
    assert db.batches.find_one({}, {"stores": 1})["stores"] == ["north"]  # type: ignore[index]


@pytest.mark.parametrize(("deleted", "status", "counts"), [(0, "partial", (1, 1)), (1, "partial", (1, 1)), (2, "done", (2, 0))])
def test_a_closed_batch_has_the_counts_and_the_state_of_the_images_that_are_left(web: FlaskClient, db: Db, deleted: int, status: str, counts: tuple[int, int]) -> None:
    ids = upload(web)
    finish(db, *ids[:2])
    finish(db, ids[2], status="failed")
    assert closing.close_batches(db, [ids[0][:32]]) == [ids[0][:32]]
    finished_at = shown(web, ids[0])["finished_at"]
    web.delete(f"/images/{ids[deleted]}")
    batch = shown(web, ids[0])
    assert (batch["total"], batch["status"], batch["finished_at"]) == (2, status, finished_at)
    assert (batch["counts"]["done"], batch["counts"]["failed"]) == counts
    assert is_balanced(db)


def test_the_deletion_of_the_only_pending_image_closes_the_batch(web: FlaskClient, db: Db) -> None:
    first, second, third = upload(web)
    finish(db, first, second)
    web.delete(f"/images/{third}")
    batch = shown(web, first)
    assert (batch["status"], batch["total"], batch["counts"]["done"]) == ("done", 2, 2)
    assert batch["finished_at"] is not None


def test_a_batch_whose_image_is_deleted_while_it_is_closed_has_the_right_counts(web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = upload(web)
    finish(db, first, second, third)
    count = closing._count_images

    def count_and_delete(*arguments: Any) -> Any:
        counts = count(*arguments)
        monkeypatch.undo()
        image_deletion.begin_delete(db, third, None)
        return counts

    monkeypatch.setattr(closing, "_count_images", count_and_delete)
    closing.close_batches(db, [first[:32]])
    closing.close_batches(db, [first[:32]])
    batch = shown(web, first)
    assert (batch["status"], batch["total"], batch["counts"]["done"]) == ("done", 2, 2)


def test_the_last_image_takes_its_batch_with_it(web: FlaskClient, db: Db, blobs: LocalBlobs) -> None:
    ids = upload(web)
    for image_id in ids:
        assert web.delete(f"/images/{image_id}").status_code == 204
    assert web.get(f"/image_batches/{ids[0][:32]}").status_code == 404
    assert web.get("/image_batches").get_json()["total"] == 0
    assert blobs.stat(spool_key(ids[0][:32])) is None
    line = db.ledger.find_one({"_id": ids[0][:32]}) or {}
    assert (line["received"], line["deleted"], line["state"]) == (3, 3, "deleted")
    assert is_balanced(db)
    validate_documents(db)


def test_deleting_the_batch_counts_an_image_once_that_was_deleted_before(web: FlaskClient, db: Db) -> None:
    first, *_ = upload(web)
    web.delete(f"/images/{first}")
    assert web.delete(f"/image_batches/{first[:32]}").status_code == 204
    assert audit.balance(db) == {"received": 3, "done": 0, "failed": 0, "cancelled": 0, "pending": 0, "deleted": 3}


def test_the_files_are_deleted_at_once(web: FlaskClient, db: Db, blobs: LocalBlobs) -> None:
    first, second, _ = upload(web)
    for image_id in (first, second):
        blobs.write(original_key(image_id, "jpg"), [b"original"])
        blobs.write(variant_key(image_id, 1, "thumb"), [b"thumb"])
        blobs.publish(image_prefix(image_id), "1")
    finish(db, first, second)
    web.delete(f"/images/{first}")
    kept = {original_key(second, "jpg"), variant_key(second, 1, "thumb")}
    assert {blob.key for blob in blobs.list(batch_prefix(first[:32]))} == kept
    assert web.get(f"/uploads/{first}/thumb.jpg").status_code == 404
    assert web.get(f"/uploads/{second}/thumb.jpg").data == b"thumb"


@pytest.mark.parametrize("path", ["/images/{id}", "/image_batches/{batch_id}"])
def test_the_files_are_deleted_before_the_event_is_recorded(web: FlaskClient, db: Db, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    first, *_ = upload(web)
    blobs.write(original_key(first, "jpg"), [b"original"])
    kept: list[bool] = []
    monkeypatch.setattr(open_services[-1].audit_log, "record", lambda _event: kept.append(blobs.stat(original_key(first, "jpg")) is not None))
    assert web.delete(path.format(id=first, batch_id=first[:32])).status_code == 204
    assert kept == [False]


def test_an_upload_that_is_repeated_has_the_first_response_again(web: FlaskClient) -> None:
    body = [image_payload(make_image(at)) for at in range(2)]
    first = post_batch(web, body, Idempotency_Key="k").get_json()
    web.delete(f"/images/{first['images'][0]['id']}")
    again = post_batch(web, body, Idempotency_Key="k")
    assert (again.status_code, again.get_json()) == (202, first)
    web.delete(f"/images/{first['images'][1]['id']}")
    assert post_batch(web, body, Idempotency_Key="k").status_code == 410


def test_a_deletion_with_the_etag_of_an_earlier_version_is_412(web: FlaskClient) -> None:
    first, *_ = upload(web)
    etag = web.get(f"/images/{first}").headers["ETag"]
    web.patch(f"/images/{first}", json={"camera_id": "other"})
    assert web.delete(f"/images/{first}", headers={"If-Match": etag}).status_code == 412
    assert web.delete(f"/images/{first}", headers={"If-Match": web.get(f"/images/{first}").headers["ETag"]}).status_code == 204


def test_a_foreign_image_is_not_deleted_but_an_own_one_of_a_shared_batch_is(closed_web: FlaskClient, db: Db) -> None:
    ids = upload(closed_web, headers=bearer(make_key(db)))
    southern = bearer(make_key(db, "uploader", ["south"]))
    refused = closed_web.delete(f"/images/{ids[0]}", headers=southern)
    assert (refused.status_code, refused.get_json(force=True)["code"]) == (403, "foreign_store")
    assert closed_web.delete(f"/images/{ids[2]}", headers=southern).status_code == 204
    assert db.images.count_documents({"status": "queued"}) == 2


def test_a_deletion_is_in_the_security_log(web: FlaskClient, db: Db) -> None:
    ids = upload(web)
    for image_id in ids:
        web.delete(f"/images/{image_id}")
    open_services[-1].audit_log.flush()
    events = [(event["target"], event.get("details")) for event in db.audit_events.find({"type": "image.deleted"}).sort("target", 1)]
    assert events == [(f"image:{ids[0]}", None), (f"image:{ids[1]}", None), (f"image:{ids[2]}", {"batch": "deleted"})]


def test_a_deleted_image_is_not_claimed(web: FlaskClient, db: Db) -> None:
    first, *_ = upload(web)
    open_services[-1].wakeup_thread.close()
    web.delete(f"/images/{first}")
    process_all(db)
    assert db.images.count_documents({"status": "done"}) == 2
    assert shown(web, first)["status"] == "done"
