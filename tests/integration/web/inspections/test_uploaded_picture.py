"""A picture that is sent, and every way to say which picture is meant."""

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
from tests.integration.web.inspections.asking import IMG, URL, code, forget_answers, pointers
from tests.integration.web.inspections.scripted_inspector import Inspector
from tests.support.web_client import make_image

pytestmark = pytest.mark.slow


def test_a_picture_that_is_sent_waits_for_the_inspector_and_is_described(web: FlaskClient, blobs_root: Path, inspector: Inspector) -> None:
    data = make_image(7)
    first = web.post("/img", data={"file": (io.BytesIO(data), "my.jpg")})
    said = first.get_json()
    assert (first.status_code, said["source"]) == (202, None)
    assert LocalBlobs(blobs_root).read(incoming_key(said["id"])) == data
    for kind in ("image/jpeg", "application/octet-stream", "image/whatever"):
        assert web.post("/img", data=data, content_type=kind).get_json()["id"] == said["id"]
    inspector.finish(sha256=hashlib.sha256(data).hexdigest())
    body = web.post("/img", data=data, content_type="image/jpeg").get_json()
    assert (body["source"], body["sha256"], body["links"]["self"]) == (None, hashlib.sha256(data).hexdigest(), said["links"]["self"])
    dream = web.post("/img?effect=deepdream", data=data, content_type="image/jpeg").get_json()
    assert dream["id"] != said["id"]


def test_a_picture_is_sent_again_when_its_result_is_gone(web: FlaskClient, db: Db, blobs_root: Path, inspector: Inspector) -> None:
    data = make_image(7)
    key = incoming_key(web.post("/img", data=data, content_type="image/jpeg").get_json()["id"])
    inspector.finish()
    LocalBlobs(blobs_root).delete(key)
    assert web.post("/img", data=data, content_type="image/jpeg").status_code == 200
    assert LocalBlobs(blobs_root).stat(key) is None
    db.inspection_results.delete_many({})
    forget_answers()
    assert web.post("/img", data=data, content_type="image/jpeg").status_code == 202
    assert LocalBlobs(blobs_root).read(key) == data


def test_a_picture_that_is_too_large_or_none_is_refused(web: FlaskClient, db: Db) -> None:
    large = make_image(1) + bytes(100_000)
    for answer in (
        web.post("/img", data=large, content_type="image/jpeg"),
        web.post("/img", data={"file": (io.BytesIO(large), "a.jpg")}),
        web.post("/img", data={"file": (io.BytesIO(large + bytes(100_000)), "a.jpg")}),
        web.post("/img", input_stream=io.BytesIO(large), content_type="image/jpeg", environ_overrides={"wsgi.input_terminated": True}),
    ):
        assert answer.status_code == 413
        assert {name: answer.get_json(force=True)[name] for name in ("code", "limit", "value")} == {
            "code": "source_too_large", "limit": "max_source_bytes", "value": 100_000,
        }  # fmt: skip
    for data in (b"no picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF"):
        assert code(web.post("/img", data=data, content_type="image/jpeg")) == "not_an_image"
    assert code(web.post("/img", data={"file": (io.BytesIO(b""), "a.jpg")})) == "not_an_image"
    assert db.inspections.count_documents({}) == 0


@pytest.mark.parametrize(
    ("path", "sent", "status", "said", "where"),
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
        (IMG, {"json": {"url": URL}}, 422, "invalid", ["/url"]),
        (f"{IMG}&effect=deepdream", {"json": {"url": URL, "effect": "deepdream"}}, 422, "invalid", None),
        (IMG, {"data": make_image(), "content_type": "image/jpeg"}, 422, "invalid", ["/url"]),
        (IMG, {"data": b"x", "content_type": "text/plain"}, 415, "unsupported_media_type", None),
        (IMG, {"data": bytes(70_000), "content_type": "application/json"}, 413, "body_too_large", None),
        ("/img", {"data": {"other": "1"}, "content_type": "multipart/form-data"}, 422, "invalid", ["/other", "/file"]),
        (f"{IMG}&effect=blur", {}, 422, "invalid", ["/effect"]),
        (f"{IMG}&effect=deepdream&layer=0&strength=x", {}, 422, "invalid", ["/layer", "/strength"]),
        (f"{IMG}&strength=0.5", {}, 422, "invalid", ["/strength"]),
        (f"/img?url={URL}&more=1", {}, 422, "invalid", ["/more"]),
        (f"/img?url={URL}&url={URL}", {}, 422, "invalid", ["/url"]),
        ("/img?more=1", {}, 422, "bad_url", None),
        ("/img?ftp%3A%2F%2Fexample.org%2Fa.jpg", {}, 422, "bad_url", None),
        ("/img?%ff", {}, 422, "bad_url", None),
        ("/img?url=https://user:secret@example.org/", {}, 422, "bad_url", None),
    ],
)
def test_exactly_one_picture_and_only_what_is_known(
    web: FlaskClient, db: Db, path: str, sent: dict[str, Any], status: int, said: str, where: list[str] | None
) -> None:
    answer = web.post(path, **sent)
    assert (answer.status_code, code(answer)) == (status, said)
    assert where is None or pointers(answer) == where
    assert db.inspections.count_documents({}) == 0


def test_two_files_are_one_too_many(web: FlaskClient) -> None:
    two = [(io.BytesIO(make_image(1)), "a.jpg"), (io.BytesIO(make_image(2)), "b.jpg")]
    answer = web.post("/img", data={"file": two})
    assert (answer.status_code, pointers(answer)) == (422, ["/file"])


def test_an_address_is_taken_as_it_was_meant(web: FlaskClient, db: Db) -> None:
    url = "https://example.org/a.jpg?x=1&y=%20"
    asked = [f"/img?{quote(url, safe='')}", f"/img?{url}", f"/img?url={quote(url, safe='')}", f"/img?{url}&wait=0", f"/img?url={quote(url, safe='')}&wait=0"]
    assert {web.post(path).get_json()["source"] for path in asked} == {url}
    assert web.post("/img", json={"url": url}).get_json()["source"] == url
    assert db.inspections.count_documents({}) == 1
