"""Uploaded images, and every way to name an image."""

import hashlib
import io
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from shared.storage.blob_keys import incoming_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.web.inspections.inspection_requests import DESCRIBE, URL, clear_response_caches, code, pointers
from tests.integration.web.inspections.scripted_inspector import Inspector
from tests.support.web_client import make_image

pytestmark = pytest.mark.slow


def test_an_uploaded_image_waits_for_the_inspector_and_is_described(web: FlaskClient, blobs_root: Path, inspector: Inspector) -> None:
    data = make_image(7)
    first = web.post("/img", data={"file": (io.BytesIO(data), "my.jpg")})
    pending = first.get_json()
    assert (first.status_code, pending["source"]) == (202, None)
    assert LocalBlobs(blobs_root).read(incoming_key(pending["id"])) == data
    for kind in ("image/jpeg", "application/octet-stream", "image/whatever"):
        assert web.post("/img", data=data, content_type=kind).get_json()["id"] == pending["id"]
    inspector.finish(sha256=hashlib.sha256(data).hexdigest())
    body = web.post("/img", data=data, content_type="image/jpeg").get_json()
    assert (body["source"], body["sha256"], body["links"]["self"]) == (None, hashlib.sha256(data).hexdigest(), pending["links"]["self"])
    dream = web.post("/img?effect=deepdream", data=data, content_type="image/jpeg").get_json()
    assert dream["id"] != pending["id"]


def test_an_image_is_stored_again_when_its_result_is_deleted(web: FlaskClient, db: Db, blobs_root: Path, inspector: Inspector) -> None:
    data = make_image(7)
    key = incoming_key(web.post("/img", data=data, content_type="image/jpeg").get_json()["id"])
    inspector.finish()
    LocalBlobs(blobs_root).delete(key)
    assert web.post("/img", data=data, content_type="image/jpeg").status_code == 200
    assert LocalBlobs(blobs_root).stat(key) is None
    db.inspection_results.delete_many({})
    clear_response_caches()
    assert web.post("/img", data=data, content_type="image/jpeg").status_code == 202
    assert LocalBlobs(blobs_root).read(key) == data


def test_a_body_that_is_too_large_or_not_an_image_is_refused(web: FlaskClient, db: Db) -> None:
    large = make_image(1) + bytes(100_000)
    for response in (
        web.post("/img", data=large, content_type="image/jpeg"),
        web.post("/img", data={"file": (io.BytesIO(large), "a.jpg")}),
        web.post("/img", data={"file": (io.BytesIO(large + bytes(100_000)), "a.jpg")}),
        web.post("/img", input_stream=io.BytesIO(large), content_type="image/jpeg", environ_overrides={"wsgi.input_terminated": True}),
    ):
        assert response.status_code == 413
        assert {name: response.get_json(force=True)[name] for name in ("code", "limit", "value")} == {
            "code": "source_too_large", "limit": "max_source_bytes", "value": 100_000,
        }  # fmt: skip
    problem = web.post("/img", data=bytes(70_000), content_type="application/json").get_json(force=True)
    assert (problem["status"], problem["limit"], problem["value"]) == (413, "max_json_bytes", 65_536)
    for data in (b"no picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF"):
        assert code(web.post("/img", data=data, content_type="image/jpeg")) == "not_an_image"
    assert code(web.post("/img", data={"file": (io.BytesIO(b""), "a.jpg")})) == "not_an_image"
    assert db.inspections.count_documents({}) == 0


@pytest.mark.parametrize(
    ("path", "sent", "status", "expected_code", "expected_pointers"),
    [
        ("/img", {}, 422, "no_source", ["/url"]),
        ("/img?url=", {}, 422, "no_source", ["/url"]),
        ("/img?effect=deepdream", {}, 422, "no_source", ["/url"]),
        ("/img", {"json": {"url": ""}}, 422, "invalid", ["/url"]),
        ("/img", {"json": {}}, 422, "invalid", ["/url"]),
        ("/img", {"json": []}, 422, "invalid", [""]),
        ("/img", {"json": {"url": URL, "effect": "x", "layer": 6, "strength": 1.5, "more": 1}}, 422, "invalid", ["/effect", "/layer", "/strength", "/more"]),
        ("/img", {"json": {"url": URL, "layer": 2}}, 422, "invalid", ["/layer"]),
        ("/img", {"data": b"{", "content_type": "application/json"}, 400, "malformed_json", None),
        (DESCRIBE, {"json": {"url": URL}}, 422, "invalid", ["/url"]),
        (f"{DESCRIBE}&effect=deepdream", {"json": {"url": URL, "effect": "deepdream"}}, 422, "invalid", None),
        (DESCRIBE, {"data": make_image(), "content_type": "image/jpeg"}, 422, "invalid", ["/url"]),
        (DESCRIBE, {"data": b"x", "content_type": "text/plain"}, 415, "unsupported_media_type", None),
        (DESCRIBE, {"data": bytes(70_000), "content_type": "application/json"}, 413, "body_too_large", None),
        ("/img", {"data": {"other": "1"}, "content_type": "multipart/form-data"}, 422, "invalid", ["/other", "/file"]),
        (f"{DESCRIBE}&effect=blur", {}, 422, "invalid", ["/effect"]),
        (f"{DESCRIBE}&effect=deepdream&layer=0&strength=x", {}, 422, "invalid", ["/layer", "/strength"]),
        (f"{DESCRIBE}&strength=0.5", {}, 422, "invalid", ["/strength"]),
        (f"/img?url={URL}&more=1", {}, 422, "invalid", ["/more"]),
        (f"/img?url={URL}&url={URL}", {}, 422, "invalid", ["/url"]),
        ("/img?more=1", {}, 422, "bad_url", None),
        ("/img?ftp%3A%2F%2Fexample.org%2Fa.jpg", {}, 422, "bad_url", None),
        ("/img?%ff", {}, 422, "bad_url", None),
        ("/img?url=https://user:secret@example.org/", {}, 422, "bad_url", None),
    ],
)
def test_a_request_names_exactly_one_image_and_only_known_fields(
    web: FlaskClient, db: Db, path: str, sent: dict[str, Any], status: int, expected_code: str, expected_pointers: list[str] | None
) -> None:
    response = web.post(path, **sent)
    assert (response.status_code, code(response)) == (status, expected_code)
    assert expected_pointers is None or pointers(response) == expected_pointers
    assert db.inspections.count_documents({}) == 0


def test_two_files_are_refused(web: FlaskClient) -> None:
    two = [(io.BytesIO(make_image(1)), "a.jpg"), (io.BytesIO(make_image(2)), "b.jpg")]
    response = web.post("/img", data={"file": two})
    assert (response.status_code, pointers(response)) == (422, ["/file"])


def test_every_spelling_of_a_url_names_the_same_source(web: FlaskClient, db: Db) -> None:
    url = "https://example.org/a.jpg?x=1&y=%20"
    paths = [f"/img?{quote(url, safe='')}", f"/img?{url}", f"/img?url={quote(url, safe='')}", f"/img?{url}&wait=0", f"/img?url={quote(url, safe='')}&wait=0"]
    assert {web.post(path).get_json()["source"] for path in paths} == {url}
    assert web.post("/img", json={"url": url}).get_json()["source"] == url
    assert db.inspections.count_documents({}) == 1
