"""Uploading one image: it is a batch with one image, and errors point into the image."""

import gzip
import hashlib
import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared.storage.mongo import Db
from tests.support.accounts import bearer, make_key
from tests.support.web_client import image_payload, make_image, post_batch


def post(web: FlaskClient, body: Any, **headers: str) -> TestResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.post("/images", data=data, headers={"Content-Type": "application/json"} | named)


def post_form(web: FlaskClient, metadata: Any, *files: bytes, **headers: str) -> TestResponse:
    parts = [('name="metadata"', json.dumps(metadata).encode())]
    parts += [(f'name="file"; filename="{at}.jpg"', file) for at, file in enumerate(files)]
    body = b"".join(b"--b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (name.encode(), data) for name, data in parts) + b"--b--\r\n"
    return web.post("/images", data=body, headers={"Content-Type": "multipart/form-data; boundary=b"} | headers)


def errors(response: TestResponse) -> list[tuple[str, str]]:
    return [(error["pointer"], error["code"]) for error in response.get_json(force=True)["errors"]]


def metadata(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in image_payload(**fields).items() if name != "file"}


def test_one_image_is_accepted_as_a_batch_of_one(web: FlaskClient) -> None:
    response = post(web, image_payload(barcode="1", shelf=7, augmentations=["x"]))
    body = response.get_json()
    assert (response.status_code, response.headers["Location"]) == (202, f"/image_batches/{body['batch_id']}")
    batch = post_batch(web, [image_payload(barcode="1", shelf=7)]).get_json()
    assert body.keys() == batch.keys()
    assert (body["total"], body["images"][0]["index"], body["status"]) == (1, 0, "queued")
    image = web.get(f"/images/{body['images'][0]['id']}").get_json()
    assert (image["barcode"], image["extra"]) == ("1", {"shelf": 7, "augmentations": ["x"]})


def test_a_form_has_one_object_and_one_file(web: FlaskClient) -> None:
    response = post_form(web, metadata(), make_image(3))
    (accepted,) = response.get_json()["images"]
    assert response.status_code == 202
    image = web.get(f"/images/{accepted['id']}").get_json()
    assert (image["filename"], image["sha256"]) == ("0.jpg", hashlib.sha256(make_image(3)).hexdigest())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"file": "?"}, ("/file", "bad_base64")), ({"file": None}, ("/file", "missing")), ({"store_name": ""}, ("/store_name", "blank")),
        ({"timestamp": "x"}, ("/timestamp", "bad_timestamp")), ({"sha256": "0" * 64}, ("/sha256", "digest_mismatch")), ({"note": "x" * 5000}, ("/extra", "extra_too_large")),
        ({"webhook_url": "https://example.org"}, ("/webhook_url", "not_supported")), ({"priority": "high"}, ("/priority", "not_supported")), ({"file": "R0lG"}, ("/file", "unsupported_format")),
    ],
)  # fmt: skip
def test_errors_point_into_the_image(web: FlaskClient, db: Db, change: dict[str, Any], expected: tuple[str, str]) -> None:
    response = post(web, image_payload() | change)
    assert (response.status_code, errors(response)) == (422, [expected])
    assert db.batches.count_documents({}) == 0


@pytest.mark.parametrize("body", [[], [image_payload()], None, "x", 5])
def test_anything_but_an_object_is_422(web: FlaskClient, body: Any) -> None:
    response = post(web, body)
    assert (response.status_code, errors(response)) == (422, [("", "wrong_type")])
    of_form = post_form(web, body, make_image())
    assert (of_form.status_code, errors(of_form)) == (422, [("", "wrong_type")])


@pytest.mark.parametrize("number", [0, 2])
def test_a_form_with_another_number_of_files_is_422(web: FlaskClient, number: int) -> None:
    response = post_form(web, metadata(), *[make_image(at) for at in range(number)])
    assert response.status_code == 422
    assert ("/file", "count_mismatch") in errors(response)


def test_an_error_in_a_form_points_into_the_image(web: FlaskClient) -> None:
    assert errors(post_form(web, metadata(camera_id=""), make_image())) == [("/camera_id", "blank")]


def test_a_foreign_store_is_403_with_its_pointer(closed_web: FlaskClient, db: Db) -> None:
    headers = bearer(make_key(db, "uploader", ["south"]))
    for refused in (post(closed_web, image_payload(), **headers), post_form(closed_web, metadata(), make_image(), **headers), post_form(closed_web, metadata(), make_image(1, (2000, 2000), "BMP"), **headers)):
        assert (refused.status_code, errors(refused)) == (403, [("/store_name", "foreign_store")])
    assert post(closed_web, image_payload(store_name="south"), **headers).status_code == 202


def test_a_key_is_answered_once(web: FlaskClient) -> None:
    first = post(web, image_payload(), Idempotency_Key="k")
    assert post_form(web, metadata(filename="a"), make_image(), **{"Idempotency-Key": "k"}).status_code == 422
    again = post(web, gzip.compress(json.dumps(image_payload()).encode()), Idempotency_Key="k", Content_Encoding="gzip")
    assert (again.status_code, again.get_json()) == (202, first.get_json())
    assert post(web, image_payload(barcode="2"), Idempotency_Key="k").get_json(force=True)["code"] == "idempotency_mismatch"


def test_limits_and_digests_are_those_of_a_batch(web: FlaskClient) -> None:
    limit = web.get("/limits").get_json()["max_image_bytes"]
    too_large = post_form(web, metadata(), bytes(limit + 1))
    assert (too_large.status_code, too_large.get_json(force=True)["code"], errors(too_large)) == (413, "image_too_large", [("/file", "image_too_large")])
    wrong = post(web, image_payload(), Content_Digest="sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:")
    assert (wrong.status_code, wrong.get_json(force=True)["code"]) == (422, "digest_mismatch")
    assert post(web, b"{", Content_Type="application/json").status_code == 400
    assert web.post("/images", data=b"x", content_type="text/plain").status_code == 415


def test_an_image_that_is_rejected_leniently_is_422(web: FlaskClient) -> None:
    assert errors(post(web, image_payload(store_name=""), Prefer="handling=lenient")) == [("/store_name", "blank")]
    accepted = post(web, image_payload(), Prefer="handling=lenient")
    assert (accepted.get_json()["accepted"], accepted.get_json()["rejected"]) == (1, 0)
