"""POST /upload_image_batch: which uploads are accepted and stored, also while the disk or the database is unavailable."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared import settings
from shared.storage.blob_keys import spool_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.support.ledger import process_all
from tests.support.web_client import image_payload, make_client, make_image, open_services, post_batch

pytestmark = pytest.mark.slow


def test_an_accepted_batch_is_on_disk_and_in_the_database_while_redis_is_unavailable(
    web: FlaskClient, db: Db, blobs_root: Path
) -> None:
    first, second = make_image(1), make_image(2)
    response = post_batch(web, [image_payload(first), image_payload(second, barcode=" 4006381333931 ", note={"a": 1})])
    assert response.status_code == 202
    body = response.get_json()
    assert body["status"] == "queued"
    assert body["total"] == 2
    assert response.headers["Location"] == body["links"]["self"] == f"/image_batches/{body['batch_id']}"
    assert [image["index"] for image in body["images"]] == [0, 1]
    assert LocalBlobs(blobs_root).read(spool_key(body["batch_id"])) == first + second
    stored = db.images.find_one({"_id": body["images"][1]["id"]})
    assert stored is not None
    assert (stored["barcode"], stored["camera_id"], stored["extra"]) == ("4006381333931", "7", {"note": {"a": 1}})
    assert db.ledger.find_one({"_id": body["batch_id"]})["received"] == 2  # type: ignore[index]


@pytest.mark.parametrize(("options", "stored"), [({}, None), ({"priority": "normal"}, None), ({"priority": "high"}, "high"), ({"priority": "low"}, "low")])
def test_the_object_form_chooses_the_priority(web: FlaskClient, db: Db, options: dict[str, str], stored: str | None) -> None:
    assert post_batch(web, {"images": [image_payload()]} | options).status_code == 202
    (image,) = db.images.find()
    assert image["work"].get("priority") == stored
    assert ("priority" in image["work"]) == (stored is not None)


def test_the_object_form_chooses_augmentations_and_detection(web: FlaskClient, db: Db) -> None:
    response = post_batch(web, {"images": [image_payload()], "augmentations": ["rotate"], "detect": False})
    stored = db.images.find_one({"_id": response.get_json()["images"][0]["id"]})
    assert stored is not None
    assert (stored["work"]["augmentations"], stored["work"]["detect"]) == (["rotate"], False)


def test_gzip_is_read_and_a_damaged_stream_is_refused(web: FlaskClient) -> None:
    body = json.dumps([image_payload()]).encode()
    good = gzip.compress(body)
    assert post_batch(web, good, Content_Encoding="gzip").status_code == 202
    assert post_batch(web, gzip.compress(body[:9]) + gzip.compress(body[9:]), Content_Encoding="gzip").status_code == 202
    assert post_batch(web, good + b"and more", Content_Encoding="gzip").status_code == 400
    assert post_batch(web, good[:-20], Content_Encoding="gzip").status_code == 400
    assert post_batch(web, b"no gzip", Content_Encoding="gzip").status_code == 400
    assert post_batch(web, good, Content_Encoding="br").status_code == 415


@pytest.mark.parametrize("prefix", ["data:image/jpeg;base64,", " \nDATA:;base64,", ""])
def test_base64_may_have_a_data_prefix_white_space_and_escaped_slashes(web: FlaskClient, prefix: str) -> None:
    image = image_payload()
    image["file"] = prefix + image["file"][:40] + "\r\n " + image["file"][40:]
    assert post_batch(web, json.dumps([image]).replace("/", "\\/")).status_code == 202


def test_extra_keys_with_any_names_are_kept_while_the_image_is_processed(web: FlaskClient, db: Db) -> None:
    extra: dict[str, Any] = {"$schema": "https://example.org/s", "$set": {"$inc": {"a.b": 1}}, "a.b": [{"$where": "1"}], "": {"$ref": "x"}, "_id": {"$id": 1}}
    response = post_batch(web, [image_payload(**extra)], Idempotency_Key="k")
    assert response.status_code == 202
    assert post_batch(web, [image_payload(**extra)], Idempotency_Key="k").get_json() == response.get_json()
    process_all(db)
    batch = web.get(response.headers["Location"]).get_json()
    assert (batch["status"], batch["images"][0]["extra"]) == ("done", extra)
    assert web.delete(response.headers["Location"]).status_code == 204


def test_a_process_that_is_stopping_still_accepts_the_requests_in_progress(web: FlaskClient, db: Db) -> None:
    open_services[-1]._executor.shutdown()  # as the interpreter does at its exit, with requests still running
    assert post_batch(web, [image_payload(make_image(1, (1200, 900))) for _ in range(3)]).status_code == 202
    assert db.images.count_documents({}) == 3


def test_a_full_disk_is_507_and_nothing_is_read(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    response = post_batch(make_client(mongo, blobs_root, min_free_bytes=2**60), [image_payload()])
    assert (response.status_code, response.get_json(force=True)["code"]) == (507, "disk_full")
    assert response.headers["Retry-After"]


def test_an_unavailable_database_is_503_and_leaves_no_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = settings.Mongo(url="mongodb://127.0.0.1:1/?replicaSet=shelfsight", server_selection_timeout_s=0.2)
    web = make_client(away, tmp_path / "blobs", max_queue_age_s=0)  # otherwise, the backlog is read first
    monkeypatch.setattr(open_services[-1], "check_free_space", lambda _coming: None)  # it reads the database first
    written: list[str] = []
    write = LocalBlobs.write

    def record_write(self: LocalBlobs, key: str, parts: Any) -> None:
        write(self, key, parts)
        written.append(key)

    monkeypatch.setattr(LocalBlobs, "write", record_write)
    response = post_batch(web, [image_payload()])
    assert len(written) == 1
    assert (response.status_code, response.get_json(force=True)["code"]) == (503, "database_unavailable")
    assert list(LocalBlobs(tmp_path / "blobs").list("spool")) == []


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": "evil.example"}, 421, "misdirected_request"),
        ({"Origin": "https://evil.example"}, 403, "foreign_origin"),
        ({"Sec_Fetch_Site": "cross-site"}, 403, "foreign_origin"),
        ({"Authorization": "Bearer x"}, 401, "unauthorized"),
        ({"Sec_Fetch_Site": "same-site"}, 403, "foreign_origin"),
        ({"Origin": "http://localhost:9999"}, 403, "foreign_origin"),
        ({"Origin": "null"}, 403, "foreign_origin"),
        ({"Origin": "http://localhost", "Sec_Fetch_Site": "same-origin"}, 202, None),
        ({"Origin": "http://127.0.0.1"}, 202, None),
        ({"Host": "[::1]:5000"}, 202, None),
    ],
)
def test_open_mode_answers_to_this_machine_only(
    web: FlaskClient, headers: dict[str, str], status: int, code: str | None
) -> None:
    response = post_batch(web, [image_payload()], **headers)
    assert (response.status_code, response.get_json(force=True).get("code")) == (status, code)
