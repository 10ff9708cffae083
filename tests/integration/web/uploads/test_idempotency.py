"""Repeated uploads with an Idempotency-Key."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from pymongo.client_session import ClientSession

from scripts.local.temporary_servers import Mongod
from shared import settings
from shared.ledger import commits
from shared.storage.blob_keys import spool_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.support.mongo_proxy import CommitFaultProxy
from tests.support.web_client import image_payload, make_client, make_image, open_services, post_batch

pytestmark = pytest.mark.slow


def test_the_same_key_returns_the_same_response_and_makes_one_batch(web: FlaskClient, db: Db) -> None:
    body = [image_payload()]
    first = post_batch(web, body, Idempotency_Key="night-1")
    again = post_batch(web, gzip.compress(json.dumps(body).encode()), Idempotency_Key="night-1", Content_Encoding="gzip")
    assert first.get_json() == again.get_json()
    assert db.batches.count_documents({}) == 1
    other = post_batch(web, [image_payload(store_name="south")], Idempotency_Key="night-1")
    assert (other.status_code, other.get_json(force=True)["code"]) == (422, "idempotency_mismatch")
    assert web.delete(first.headers["Location"]).status_code == 204
    gone = post_batch(web, body, Idempotency_Key="night-1")
    assert (gone.status_code, gone.get_json(force=True)["code"]) == (410, "batch_deleted")


def test_the_priority_belongs_to_the_request_of_a_key(web: FlaskClient, db: Db) -> None:
    def post(key: str, **options: str) -> tuple[int, str | None]:
        response = post_batch(web, {"images": [image_payload()], **options}, Idempotency_Key=key)
        return response.status_code, response.get_json(force=True).get("code")

    assert post("high", priority="high") == post("high", priority="high") == (202, None)
    assert [post("high", **options) for options in ({}, {"priority": "normal"}, {"priority": "low"})] == [(422, "idempotency_mismatch")] * 3
    assert post("normal") == post("normal", priority="normal") == (202, None)
    assert post("normal", priority="high") == (422, "idempotency_mismatch")
    assert db.batches.count_documents({}) == 2


def test_a_repetition_while_the_first_request_is_in_flight_is_409(web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, early = commits._commit, []

    def commit_while_another_requests(session: ClientSession) -> None:
        early.append(post_batch(web.application.test_client(), [image_payload()], Idempotency_Key="k"))
        commit(session)

    monkeypatch.setattr(commits, "_commit", commit_while_another_requests)
    first = post_batch(web, [image_payload()], Idempotency_Key="k")
    assert first.status_code == 202
    assert [(response.status_code, response.get_json(force=True)["code"], response.headers["Retry-After"]) for response in early] == [(409, "request_in_flight", "2")]
    assert post_batch(web, [image_payload()], Idempotency_Key="k").get_json() == first.get_json()
    assert db.batches.count_documents({}) == 1


def test_a_database_that_disconnects_at_the_commit_is_503_with_the_batch_that_the_key_then_returns(
    web: FlaskClient, db: Db, mongod: Mongod, mongo: settings.Mongo, blobs_root: Path
) -> None:
    proxy = CommitFaultProxy(mongod.port, "lose_answer", refuse_reconnects=True)
    cut = mongo.model_copy(update={"url": mongod.direct_url(proxy.port), "commit_deadline_s": 5})
    response = post_batch(make_client(cut, blobs_root), [image_payload()], Idempotency_Key="k")
    problem = response.get_json(force=True)
    assert (response.status_code, problem["code"], response.headers["Retry-After"]) == (503, "commit_unknown", "5")
    assert LocalBlobs(blobs_root).read(spool_key(problem["batch_id"])) == make_image()  # the batch may have been accepted, and was
    again = post_batch(web, [image_payload()], Idempotency_Key="k")
    assert (again.status_code, again.get_json()["batch_id"]) == (202, problem["batch_id"])
    assert db.batches.count_documents({}) == 1
    open_services.pop().close()  # before the proxy that it is connected through
    proxy.close()


def test_a_repetition_needs_no_free_space(web: FlaskClient, db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    first = post_batch(web, [image_payload()], Idempotency_Key="k")
    full = make_client(mongo, blobs_root, min_free_bytes=10**18)
    assert post_batch(full, [image_payload()], Idempotency_Key="k").get_json() == first.get_json()
    for key in ("k", "other"):
        response = post_batch(full, [image_payload(store_name="south")], Idempotency_Key=key)
        assert response.status_code == (422 if key == "k" else 507)
    assert db.batches.count_documents({}) == 1


def test_sizes_and_syntax_are_checked_before_the_key(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    web = make_client(mongo, blobs_root, max_images=1)
    for body, status in (("{bad", 400), ([image_payload(), image_payload()], 413), ([image_payload()], 422)):
        assert post_batch(web, body, Idempotency_Key="\t").status_code == status
    for metadata, status in (({"metadata": "{bad"}, 400), ({}, 413)):
        files = [(io.BytesIO(make_image()), "a.jpg") for _ in range(2)]
        assert web.post("/upload_image_batch", data={**metadata, "file": files}).status_code == status


@pytest.mark.parametrize("change", [{"file": "??"}, {"file": "?", "store_name": "south"}, {"file": "?", "barcode": "9"}])
def test_another_invalid_image_is_another_request(web: FlaskClient, change: dict[str, Any]) -> None:
    headers = {"Idempotency_Key": "k", "Prefer": "handling=lenient"}
    first = post_batch(web, [image_payload(), image_payload(file="?")], **headers)
    assert post_batch(web, [image_payload(), image_payload(file="?")], **headers).get_json() == first.get_json()
    other = post_batch(web, [image_payload(), image_payload(**change)], **headers)
    assert (other.status_code, other.get_json(force=True)["code"]) == (422, "idempotency_mismatch")


def test_a_lenient_repetition_with_another_error_is_another_request(web: FlaskClient) -> None:
    first = {"Idempotency_Key": "k", "Prefer": "handling=lenient"}
    assert post_batch(web, [image_payload(), image_payload(file="?")], **first).status_code == 202
    assert post_batch(web, [image_payload(), image_payload(file="?")], **first).status_code == 202
    assert post_batch(web, [image_payload(), image_payload(store_name="")], **first).status_code == 422


def test_a_refused_request_does_not_use_up_its_key(web: FlaskClient) -> None:
    assert post_batch(web, [image_payload(file="?")], Idempotency_Key="k").status_code == 422
    assert post_batch(web, [image_payload()], Idempotency_Key="k").status_code == 202
    assert post_batch(web, [image_payload()], Idempotency_Key="").status_code == 422
