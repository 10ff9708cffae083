"""Uploads as multipart/form-data."""

import hashlib
import io
import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared.storage.mongo import Db
from tests.support.web_client import image_payload, make_image, post_batch

pytestmark = pytest.mark.slow


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


def test_a_part_needs_no_file_name(web: FlaskClient, db: Db) -> None:
    metadata = json.dumps([{name: value for name, value in image_payload().items() if name != "file"}]).encode()
    lines = [b"--x", b'Content-Disposition: form-data; name="file"', b"", make_image(), b"--x",
             b'Content-Disposition: form-data; name="metadata"', b"", metadata, b"--x--", b""]  # fmt: skip
    response = post_batch(web, b"\r\n".join(lines), Content_Type="multipart/form-data; boundary=x")
    assert response.status_code == 202
    assert db.images.find_one({})["file_size"] == len(make_image())  # type: ignore[index]


def test_the_metadata_of_a_form_can_have_digests(web: FlaskClient, db: Db) -> None:
    metadata = {name: value for name, value in image_payload().items() if name != "file"}
    digests = [hashlib.sha256(make_image(seed)).hexdigest() for seed in (1, 2)]

    def post(*sent: str) -> TestResponse:
        files = [(io.BytesIO(make_image(seed)), f"{seed}.jpg") for seed in (1, 2)]
        return web.post("/upload_image_batch", data={"metadata": json.dumps([metadata | {"sha256": digest} for digest in sent]), "file": files})

    assert post(*digests).status_code == 202
    assert {(image["sha256"], len(image["extra"])) for image in db.images.find()} == {(digest, 0) for digest in digests}
    problem = post(digests[0], digests[0]).get_json(force=True)
    assert (problem["status"], problem["code"], problem["errors"][0]["pointer"]) == (422, "digest_mismatch", "/1/sha256")


@pytest.mark.parametrize(
    ("parts", "code", "errors"),
    [
        ({"webhook_url": "http://x"}, "not_supported", [("/webhook_url", "not_supported")]),
        ({"priority": "high"}, "not_supported", [("/priority", "not_supported")]),
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
