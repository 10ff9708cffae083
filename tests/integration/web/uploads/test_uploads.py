"""POST /upload_image_batch: which uploads are accepted, which are refused, and with what response."""

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
from tests.support.ledger import process_all
from tests.support.mongo_proxy import CommitFaultProxy
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


def test_the_object_form_chooses_augmentations_and_detection(web: FlaskClient, db: Db) -> None:
    response = post_batch(web, {"images": [image_payload()], "augmentations": ["rotate"], "detect": False})
    stored = db.images.find_one({"_id": response.get_json()["images"][0]["id"]})
    assert stored is not None
    assert (stored["work"]["augmentations"], stored["work"]["detect"]) == (["rotate"], False)


@pytest.mark.parametrize(
    ("body", "status", "code", "pointers"),
    [
        ("", 400, "malformed_json", []),
        ("{", 400, "malformed_json", []),
        ("[" * 10_000, 400, "malformed_json", []),
        ('[{"a": NaN}]', 400, "malformed_json", []),
        (b"\xff\xfe[]", 400, "malformed_json", []),
        ("[]", 422, "invalid", [""]),
        ("3", 422, "invalid", [""]),
        ("{}", 422, "invalid", ["/images"]),
        ([1, image_payload()], 422, "invalid", ["/0"]),
        ([image_payload(file="!!!!")], 422, "invalid", ["/0/file"]),
        ([image_payload(file="")], 422, "invalid", ["/0/file"]),
        ([image_payload(file=None)], 422, "invalid", ["/0/file"]),
        ([image_payload(b"hello, no picture")], 422, "invalid", ["/0/file"]),
        ([image_payload(timestamp="yesterday")], 422, "invalid", ["/0/timestamp"]),
        ([image_payload(timestamp=1e300)], 422, "invalid", ["/0/timestamp"]),
        ([image_payload(timestamp=True)], 422, "invalid", ["/0/timestamp"]),
        ([image_payload(store_name="  ")], 422, "invalid", ["/0/store_name"]),
        ([image_payload(store_name=5)], 422, "invalid", ["/0/store_name"]),
        ([image_payload(camera_id=1.5)], 422, "invalid", ["/0/camera_id"]),
        ([image_payload(barcode="9" * 65)], 422, "invalid", ["/0/barcode"]),
        ([image_payload(extra={"a": "x" * 5000})], 422, "invalid", ["/0/extra"]),
        ([image_payload(big=2**70)], 422, "invalid", ["/0/extra"]),
        ({"images": [image_payload(), image_payload(file="%")]}, 422, "invalid", ["/images/1/file"]),
        ({"images": [image_payload()], "augmentations": ["swirl"]}, 422, "invalid", ["/augmentations/0"]),
        ({"images": [image_payload()], "webhook_url": "http://example.com"}, 422, "not_supported", ["/webhook_url"]),
        ([image_payload()] * 1001, 413, "too_many_images", []),
    ],
    ids=lambda value: str(value)[:24] if isinstance(value, str | bytes) else None,
)
def test_an_invalid_body_is_refused_with_pointers_and_nothing_is_stored(
    web: FlaskClient, db: Db, body: Any, status: int, code: str, pointers: list[str]
) -> None:
    response = post_batch(web, body)
    assert response.status_code == status
    assert response.mimetype == "application/problem+json"
    problem = response.get_json(force=True)
    assert problem["code"] == code
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert [error["pointer"] for error in problem.get("errors", [])] == pointers
    assert db.batches.count_documents({}) == 0


def test_an_image_too_large_is_413_with_the_limit_and_is_rejected_alone_when_lenient(
    db: Db, mongo: settings.Mongo, blobs_root: Path
) -> None:
    web = make_client(mongo, blobs_root, max_image_bytes=2000)
    large = make_image(3, (640, 480))
    refused = post_batch(web, [image_payload(), image_payload(large)])
    problem = refused.get_json(force=True)
    assert (refused.status_code, problem["code"], problem["value"]) == (413, "image_too_large", 2000)
    assert [error["pointer"] for error in problem["errors"]] == ["/1/file"]
    lenient = post_batch(web, [image_payload(), image_payload(large)], Prefer="handling=lenient").get_json()
    assert (lenient["accepted"], lenient["rejected"], lenient["total"]) == (1, 1, 1)
    assert [image["status"] for image in lenient["images"]] == ["queued", "rejected"]


def test_lenient_without_a_valid_image_is_refused(web: FlaskClient) -> None:
    assert post_batch(web, [image_payload(file="?")], Prefer="handling=lenient").status_code == 422


def test_a_body_too_large_is_413_inflated_or_not(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    web = make_client(mongo, blobs_root, max_body_bytes=100_000)
    bomb = gzip.compress(b" " * 200_000)
    for response in (post_batch(web, b" " * 200_000), post_batch(web, bomb, Content_Encoding="gzip")):
        problem = response.get_json(force=True)
        assert (response.status_code, problem["code"], problem["limit"]) == (413, "body_too_large", "max_body_bytes")


def test_gzip_is_read_and_a_damaged_stream_is_refused(web: FlaskClient) -> None:
    body = json.dumps([image_payload()]).encode()
    good = gzip.compress(body)
    assert post_batch(web, good, Content_Encoding="gzip").status_code == 202
    assert post_batch(web, gzip.compress(body[:9]) + gzip.compress(body[9:]), Content_Encoding="gzip").status_code == 202
    assert post_batch(web, good + b"and more", Content_Encoding="gzip").status_code == 400
    assert post_batch(web, good[:-20], Content_Encoding="gzip").status_code == 400
    assert post_batch(web, b"no gzip", Content_Encoding="gzip").status_code == 400
    assert post_batch(web, good, Content_Encoding="br").status_code == 415


def test_the_compressed_bytes_of_a_gzip_stream_are_limited_too(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    web = make_client(mongo, blobs_root, max_body_bytes=10_000)
    endless = gzip.compress(b"[]") + gzip.compress(b"") * 1000
    response = web.post("/upload_image_batch", input_stream=io.BytesIO(endless), headers={"Content-Encoding": "gzip"}, environ_overrides={"wsgi.input_terminated": True})  # fmt: skip
    assert (response.status_code, response.get_json(force=True)["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("prefix", ["data:image/jpeg;base64,", " \nDATA:;base64,", ""])
def test_base64_may_have_a_data_prefix_white_space_and_escaped_slashes(web: FlaskClient, prefix: str) -> None:
    image = image_payload()
    image["file"] = prefix + image["file"][:40] + "\r\n " + image["file"][40:]
    assert post_batch(web, json.dumps([image]).replace("/", "\\/")).status_code == 202


def test_too_many_small_values_are_413_before_they_fill_the_memory(web: FlaskClient) -> None:
    for body in (b"[" + b"{}," * 300_000 + b"{}]", b'{"images":[],' + b",".join(b'"a%d":0' % n for n in range(300_000)) + b"}"):
        problem = post_batch(web, body).get_json(force=True)
        assert (problem["status"], problem["code"], problem["limit"]) == (413, "too_many_values", "max_values")
    few = post_batch(web, {"images": [image_payload()], "x" * 5000: 0, **{f"a{n}": 0 for n in range(500)}}).get_json(force=True)
    assert (few["status"], len(few["errors"]), max(len(error["pointer"]) for error in few["errors"])) == (422, 100, 201)


def test_counts_and_sizes_are_reported_before_fields(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    web = make_client(mongo, blobs_root, max_image_bytes=2000, max_images=3)
    large = image_payload(make_image(3, (640, 480)))
    for body in ({"images": [large], "augmentations": ["blurr"]}, {"images": [large], "webhook_url": "x", "foo": 1}):
        assert post_batch(web, body).get_json(force=True)["code"] == "image_too_large"
    assert post_batch(web, {"images": [image_payload()] * 4, "webhook_url": "x"}).get_json(force=True)["code"] == "too_many_images"
    files = [(io.BytesIO(make_image()), "a.jpg") for _ in range(40)]
    form = web.post("/upload_image_batch", data={"metadata": json.dumps([{}]), "file": files})
    assert (form.status_code, form.get_json(force=True)["code"]) == (413, "too_many_images")


def test_a_form_is_the_same_upload(web: FlaskClient, db: Db) -> None:
    metadata = {name: value for name, value in image_payload().items() if name != "file"}
    files = [(io.BytesIO(make_image(n)), f"shelf {n}.jpg") for n in (1, 2)]
    response = web.post("/upload_image_batch", data={"metadata": json.dumps([metadata, metadata]), "file": files})
    assert response.status_code == 202
    assert db.images.distinct("filename") == ["shelf 1.jpg", "shelf 2.jpg"]
    short = web.post(
        "/upload_image_batch", data={"metadata": json.dumps([metadata, metadata]), "file": [(io.BytesIO(make_image()), "a.jpg")]}
    )
    assert (short.status_code, short.get_json(force=True)["errors"][0]["code"]) == (422, "count_mismatch")
    assert web.post("/upload_image_batch", data={"file": [(io.BytesIO(make_image()), "a.jpg")]}).status_code == 422


def test_a_file_name_that_is_not_utf8_and_a_byte_order_mark_do_not_refuse_a_form(web: FlaskClient, db: Db) -> None:
    metadata = json.dumps([{name: value for name, value in image_payload().items() if name != "file"}]).encode()
    lines = [b"--x", b'Content-Disposition: form-data; name="metadata"', b"", b"\xef\xbb\xbf" + metadata, b"--x",
             b'Content-Disposition: form-data; name="file"; filename="caf\xe9\0.jpg"', b"", make_image(), b"--x--", b""]  # fmt: skip
    response = post_batch(web, b"\r\n".join(lines), Content_Type='multipart/form-data; boundary="x"')
    assert response.status_code == 202
    assert db.images.distinct("filename") == ["café.jpg"]


def test_a_form_without_a_boundary_is_refused_with_the_reason(web: FlaskClient) -> None:
    problem = post_batch(web, b"--x\r\n", Content_Type="multipart/form-data").get_json(force=True)
    assert (problem["status"], problem["code"]) == (400, "malformed_form")
    assert "no boundary" in problem["detail"]


def test_extra_keys_with_any_names_are_kept_while_the_image_is_processed(web: FlaskClient, db: Db) -> None:
    extra: dict[str, Any] = {"$schema": "https://example.org/s", "$set": {"$inc": {"a.b": 1}}, "a.b": [{"$where": "1"}], "": {"$ref": "x"}, "_id": {"$id": 1}}
    response = post_batch(web, [image_payload(**extra)], Idempotency_Key="k")
    assert response.status_code == 202
    assert post_batch(web, [image_payload(**extra)], Idempotency_Key="k").get_json() == response.get_json()
    process_all(db)
    batch = web.get(response.headers["Location"]).get_json()
    assert (batch["status"], batch["images"][0]["extra"]) == ("done", extra)
    assert web.delete(response.headers["Location"]).status_code == 204


def test_a_part_needs_no_file_name(web: FlaskClient, db: Db) -> None:
    metadata = json.dumps([{name: value for name, value in image_payload().items() if name != "file"}]).encode()
    lines = [b"--x", b'Content-Disposition: form-data; name="file"', b"", make_image(), b"--x",
             b'Content-Disposition: form-data; name="metadata"', b"", metadata, b"--x--", b""]  # fmt: skip
    response = post_batch(web, b"\r\n".join(lines), Content_Type="multipart/form-data; boundary=x")
    assert response.status_code == 202
    assert db.images.find_one({})["file_size"] == len(make_image())  # type: ignore[index]


@pytest.mark.parametrize(
    ("parts", "code", "errors"),
    [
        ({"webhook_url": "http://x"}, "not_supported", [("/webhook_url", "not_supported")]),
        ({"detect": "false", "files": "x"}, "invalid", [("/detect", "unknown_field"), ("/files", "unknown_field")]),
        ({"metadata": ["[]", "[]"]}, "invalid", [("/metadata", "given_twice"), ("", "empty"), ("/file", "count_mismatch")]),
        ({"metadata": json.dumps([image_payload()])}, "invalid", [("/0/file", "unknown_field")]),
    ],
)
def test_parts_of_a_form_without_effect_are_refused(
    web: FlaskClient, parts: dict[str, Any], code: str, errors: list[tuple[str, str]]
) -> None:
    metadata = json.dumps([{name: value for name, value in image_payload().items() if name != "file"}])
    form = {"metadata": metadata, "file": (io.BytesIO(make_image()), "a.jpg"), **parts}
    response = web.post("/upload_image_batch", data=form)
    body = response.get_json(force=True)
    assert (response.status_code, body["code"]) == (422, code)
    assert {(error["pointer"], error["code"]) for error in body["errors"]} == set(errors)


def test_every_error_of_an_image_is_reported_and_sizes_come_first(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    web = make_client(mongo, blobs_root, max_image_bytes=2000)
    bad = {"store_name": "", "x": "y" * 5000}
    wrong = post_batch(web, [image_payload(b"no picture", **bad)]).get_json(force=True)
    assert {(error["pointer"], error["code"]) for error in wrong["errors"]} == {
        ("/0/store_name", "blank"), ("/0/extra", "extra_too_large"), ("/0/file", "unsupported_format"),
    }  # fmt: skip
    large = post_batch(web, [image_payload(make_image() + bytes(2000), **bad)])
    assert (large.status_code, large.get_json(force=True)["code"]) == (413, "image_too_large")
    empty = post_batch(web, {"images": [], "webhook_url": "x"}).get_json(force=True)
    assert (empty["code"], [error["code"] for error in empty["errors"]]) == ("not_supported", ["not_supported", "empty"])


@pytest.mark.parametrize(
    ("prefer", "status"),
    [
        ("handling=lenient", 202),
        ('respond-async, Handling = "lenient"; x=1', 202),
        ("handling=strict, handling=lenient", 422),
        ("lenient", 422),
    ],
)
def test_lenient_is_requested_by_a_preference(web: FlaskClient, prefer: str, status: int) -> None:
    assert post_batch(web, [image_payload(), image_payload(file="?")], Prefer=prefer).status_code == status


def test_another_media_type_is_refused_with_the_accepted_ones(web: FlaskClient) -> None:
    response = post_batch(web, "a=b", Content_Type="application/x-www-form-urlencoded")
    assert (response.status_code, response.get_json(force=True)["accepted"]) == (
        415,
        ["application/json", "multipart/form-data"],
    )


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
    cut = mongo.model_copy(update={"url": f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true", "commit_deadline_s": 5})
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
    web = make_client(away, tmp_path / "blobs")
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
