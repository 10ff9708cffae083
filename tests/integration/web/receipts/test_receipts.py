"""``GET /image_batches/<id>/receipt`` and ``POST /receipts/verify``."""

import hashlib
import json
import re
import threading
from datetime import datetime
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared import settings
from shared.ids import new_batch_id
from shared.ledger import claims, closing, reprocessing, results, turns
from shared.ledger.results import Result
from shared.storage.mongo import Db
from tests.support.accounts import bearer, make_key
from tests.support.ledger import claimed_fences, commit_new_batch, process_all
from tests.support.web_client import image_payload, make_client, make_image, post_batch

KINDS = ("received", "done", "failed", "cancelled", "pending", "deleted")


def receipt_of(web: FlaskClient, batch_id: str, **headers: Any) -> dict[str, Any]:
    answer = web.get(f"/image_batches/{batch_id}/receipt", **headers)
    assert answer.status_code == 200
    receipt: dict[str, Any] = answer.get_json()
    assert receipt["balance"]["received"] == sum(receipt["balance"][kind] for kind in KINDS[1:])
    return receipt


def is_valid(web: FlaskClient, receipt: Any, **headers: Any) -> bool:
    answer = web.post("/receipts/verify", json=receipt, **headers)
    assert (answer.status_code, set(answer.get_json())) == (200, {"valid"})
    return bool(answer.get_json()["valid"])


def test_a_receipt_names_each_image_with_its_digest_outcome_and_times(web: FlaskClient, db: Db) -> None:
    files = [make_image(seed) for seed in range(3)]
    batch = post_batch(web, [image_payload(data) for data in files]).get_json()
    turns.repair(db)
    process_all(db)
    receipt = receipt_of(web, batch["batch_id"])
    shown = web.get(f"/image_batches/{batch['batch_id']}").get_json()["images"]
    assert [image["sha256"] for image in receipt["images"]] == [hashlib.sha256(data).hexdigest() for data in files]
    assert [(image["id"], image["index"], image["status"]) for image in receipt["images"]] == [(image["id"], image["index"], "done") for image in shown]
    for image, other in zip(receipt["images"], shown, strict=True):
        assert set(image) == {"id", "index", "sha256", "status", "received_at", "finished_at"}
        for name, shown_as in (("received_at", "created_at"), ("finished_at", "finished_at")):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", image[name])
            assert datetime.fromisoformat(image[name]) == datetime.fromisoformat(other[shown_as])
    assert receipt["balance"] == {"received": 3, "done": 3, "failed": 0, "cancelled": 0, "pending": 0, "deleted": 0}
    assert (receipt["batch_id"], set(receipt), receipt["signature"]["alg"]) == (batch["batch_id"], {"batch_id", "issued_at", "images", "balance", "signature"}, "HMAC-SHA256")
    assert is_valid(web, receipt)


def test_a_batch_with_unfinished_and_deleted_images_has_a_receipt_that_balances(web: FlaskClient, db: Db) -> None:
    batch_id = commit_new_batch(db, 5)
    claim = claims.claim(db, "worker", 2, 60)
    (first, fence), (second, other_fence) = claimed_fences(claim)
    results.finish(db, "worker", [Result(first, fence, {"width": 1, "height": 1}), Result(second, other_fence, {}, ("corrupt", "Damaged."))])
    assert web.delete(f"/images/{batch_id}0004").status_code == 204
    receipt = receipt_of(web, batch_id)
    assert receipt["balance"] == {"received": 5, "done": 1, "failed": 1, "cancelled": 0, "pending": 2, "deleted": 1}
    assert [image["index"] for image in receipt["images"]] == [0, 1, 2, 3]
    assert [image["finished_at"] is None for image in receipt["images"]] == [False, False, True, True]
    assert is_valid(web, receipt)


def test_an_image_that_is_processed_again_has_no_time_of_an_end(web: FlaskClient, db: Db) -> None:
    batch_id = commit_new_batch(db, 1)
    process_all(db)
    assert receipt_of(web, batch_id)["images"][0]["finished_at"] is not None
    assert reprocessing.reprocess(db, batch_id, {}, reprocessing.Options(), None).queued == 1
    receipt = receipt_of(web, batch_id)
    assert (receipt["images"][0]["status"], receipt["images"][0]["finished_at"]) == ("queued", None)
    assert receipt["balance"] == {"received": 1, "done": 0, "failed": 0, "cancelled": 0, "pending": 1, "deleted": 0}
    process_all(db)
    assert receipt_of(web, batch_id)["images"][0]["finished_at"] is not None


def test_a_document_that_was_removed_by_hand_shows_in_the_balance(web: FlaskClient, db: Db) -> None:
    batch_id = commit_new_batch(db, 3)
    db.images.delete_one({"_id": f"{batch_id}0001"})
    receipt = web.get(f"/image_batches/{batch_id}/receipt").get_json()
    assert (receipt["balance"]["received"], receipt["balance"]["pending"]) == (3, 2)


def test_receipts_balance_while_images_are_processed_and_deleted(web: FlaskClient, db: Db) -> None:
    batch_id = commit_new_batch(db, 40)
    stop = threading.Event()

    def work() -> None:
        try:
            for number in range(20):
                claim = claims.claim(db, "worker", 1, 60)
                results.finish(db, "worker", [Result(name, fence, {"width": 1, "height": 1}) for name, fence in claimed_fences(claim)])
                web.delete(f"/images/{batch_id}{39 - number:04x}")
            closing.close_batches(db, {batch_id})
        finally:
            stop.set()

    thread = threading.Thread(target=work)
    thread.start()
    deleted: set[int] = set()
    while not stop.is_set():
        receipt = receipt_of(web, batch_id)
        counts = receipt["balance"]
        assert len(receipt["images"]) == counts["received"] - counts["deleted"]
        deleted.add(counts["deleted"])
    thread.join()
    assert deleted & set(range(1, 20))
    assert receipt_of(web, batch_id)["balance"]["deleted"] == 20


def test_unknown_and_deleted_batches_have_no_receipt(web: FlaskClient, db: Db) -> None:
    batch_id = commit_new_batch(db, 1)
    assert web.delete(f"/image_batches/{batch_id}").status_code == 204
    for name in (batch_id, new_batch_id(), "nonsense", f"{batch_id}0000"):
        answer = web.get(f"/image_batches/{name}/receipt")
        assert (answer.status_code, answer.get_json(force=True)["code"]) == (404, "not_found")
    assert web.get(f"/image_batches/{batch_id}/receipt?wait=1").status_code == 422


def test_each_reader_gets_a_receipt_of_their_part(closed_web: FlaskClient, db: Db) -> None:
    batch_id = commit_new_batch(db, store=["north", "south", "north", "south"])
    everything = bearer(make_key(db, "admin"))
    assert closed_web.delete(f"/images/{batch_id}0002", headers=everything).status_code == 204
    for stores, indexes, received, deleted in ((["*"], [0, 1, 3], 4, 1), (["north", "south"], [0, 1, 3], 3, 0), (["north"], [0], 1, 0), (["south", "east"], [1, 3], 2, 0)):
        headers = bearer(make_key(db, "viewer", stores))
        receipt = receipt_of(closed_web, batch_id, headers=headers)
        assert [image["index"] for image in receipt["images"]] == indexes
        assert (receipt["balance"]["received"], receipt["balance"]["deleted"]) == (received, deleted)
        assert is_valid(closed_web, receipt, headers=headers)
    for stores in (["east"], []):
        assert closed_web.get(f"/image_batches/{batch_id}/receipt", headers=bearer(make_key(db, "viewer", stores))).status_code == 404


@pytest.mark.parametrize("edit", ["status", "sha256", "received", "batch", "member", "key"])
def test_an_edited_receipt_is_invalid(web: FlaskClient, db: Db, edit: str) -> None:
    receipt = receipt_of(web, commit_new_batch(db, 2))
    if edit == "status":
        receipt["images"][1]["status"] = "done"
    elif edit == "sha256":
        receipt["images"][0]["sha256"] = "1" * 64
    elif edit == "received":
        receipt["balance"]["received"] = 1
    elif edit == "batch":
        receipt["batch_id"] = new_batch_id()
    elif edit == "member":
        receipt["note"] = None
    else:
        receipt["signature"]["key_id"] = "test-0000000000000000"
    assert not is_valid(web, receipt)


def test_the_spelling_of_json_does_not_matter_but_of_numbers_and_repeated_members_does(web: FlaskClient, db: Db) -> None:
    receipt = receipt_of(web, commit_new_batch(db, 1))

    def verify(text: str) -> Any:
        return web.post("/receipts/verify", data=text.encode(), content_type="application/json").get_json()["valid"]

    text = json.dumps(dict(reversed(receipt.items())), indent=2)
    assert verify(text)
    assert verify("\ufeff" + text)
    assert not verify(text.replace('"pending": 1', '"pending": 1.0'))
    assert not verify(text.replace('"pending": 1', '"pending": 1e0'))
    assert not verify(text.replace('"pending": 1', '"pending": 0, "pending": 1'))


def test_what_is_no_receipt_is_refused(web: FlaskClient) -> None:
    def send(text: bytes, kind: str = "application/json") -> tuple[int, str, list[str]]:
        answer = web.post("/receipts/verify", data=text, content_type=kind)
        body = answer.get_json(force=True)
        return answer.status_code, body["code"], [error["pointer"] for error in body.get("errors", [])]

    assert send(b"") == (422, "invalid", ["/signature"])
    assert send(b"[]")[:2] == (422, "invalid")
    assert send(b"1")[:2] == (422, "invalid")
    assert send(b'{"signature": null}') == (422, "invalid", ["/signature"])
    assert send(b'{"signature": {"alg": 1, "value": "x"}}') == (422, "invalid", ["/signature/alg", "/signature/key_id"])
    assert send(b"{")[:2] == (400, "malformed_json")
    assert send(b'{"images": ' + b"[" * 20_000 + b"]" * 20_000 + b"}")[:2] == (413, "too_many_values")
    assert send(b'{"images": ' + b"[" * 5_000 + b"]" * 5_000 + b"}")[:2] == (400, "malformed_json")
    assert send(b" " * 2_000_000)[:2] == (413, "body_too_large")
    assert send(b"{}", "text/plain")[:2] == (415, "unsupported_media_type")


def test_the_receipt_of_the_largest_batch_can_be_verified(web: FlaskClient, db: Db) -> None:
    receipt = receipt_of(web, commit_new_batch(db, 1000))
    assert len(receipt["images"]) == 1000
    answer = web.post("/receipts/verify", data=json.dumps(receipt, indent=4), content_type="application/json")
    assert answer.get_json() == {"valid": True}


def test_without_signing_keys_all_processes_use_one_key_of_the_database(web: FlaskClient, db: Db, mongo: settings.Mongo, tmp_path: Any) -> None:
    batch_id = commit_new_batch(db, 1)
    other = make_client(mongo, tmp_path / "other")
    first, second = receipt_of(web, batch_id), receipt_of(other, batch_id)
    assert first["signature"]["key_id"] == second["signature"]["key_id"]
    assert is_valid(other, first)
    assert is_valid(web, second)
    assert db.receipt_keys.count_documents({}) == 1
