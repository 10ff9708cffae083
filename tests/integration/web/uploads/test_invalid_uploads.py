"""Which uploads are refused, with which errors, and what a lenient client gets."""

import base64
import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any, Final

import pytest
from flask.testing import FlaskClient

from shared import settings
from shared.storage.mongo import Db
from tests.support.web_client import image_payload, make_client, make_image, post_batch

pytestmark = pytest.mark.slow
_WRONG_PRIORITIES: Final[list[Any]] = ["urgent", "High", "", None, 1, ["high"], {}]


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
        ([image_payload(sha256="0" * 63)], 422, "invalid", ["/0/sha256"]),
        ([image_payload(sha256=5, timestamp="x")], 422, "invalid", ["/0/timestamp", "/0/sha256"]),
        ([image_payload(), image_payload(sha256="0" * 64)], 422, "digest_mismatch", ["/1/sha256"]),
        ([image_payload(sha256="0" * 64, store_name="")], 422, "invalid", ["/0/store_name", "/0/sha256"]),
        ({"images": [image_payload(sha256="0" * 64)], "webhook_url": "x"}, 422, "not_supported", ["/webhook_url", "/images/0/sha256"]),
        *(({"images": [image_payload()], "priority": wrong}, 422, "invalid", ["/priority"]) for wrong in _WRONG_PRIORITIES),
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


def test_a_digest_is_compared_with_the_file_and_not_stored(web: FlaskClient, db: Db) -> None:
    data = make_image(2, (640, 480))
    digest = hashlib.sha256(data).hexdigest()
    lower, upper = (image_payload(data, sha256=text) for text in (digest, digest.upper()))
    assert post_batch(web, [lower, upper, image_payload(data, sha256=None)]).status_code == 202
    wrapped = lower | {"file": base64.encodebytes(data).decode()}
    assert post_batch(web, [wrapped]).status_code == 202
    assert [(image["sha256"], image["extra"]) for image in db.images.find()] == [(digest, {})] * 4


def test_a_damaged_image_is_rejected_alone_when_lenient(web: FlaskClient) -> None:
    good, damaged = (make_image(seed, (640, 480)) for seed in (2, 3))
    digest = hashlib.sha256(good).hexdigest()
    response = post_batch(web, [image_payload(damaged, sha256=digest), image_payload(good, sha256=digest)], Prefer="handling=lenient")
    rejected, accepted = response.get_json()["images"]
    assert (rejected["status"], accepted["status"]) == ("rejected", "queued")
    assert [(error["pointer"], error["code"]) for error in rejected["errors"]] == [("/0/sha256", "digest_mismatch")]
    assert hashlib.sha256(damaged).hexdigest() in rejected["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("query", "body", "name"),
    [
        ("", {"images": [image_payload()], "webhook_url": "x"}, "webhook_url"),
        ("?webhook_url=x", [image_payload()], "webhook_url"),
        ("?priority=low", [image_payload()], "priority"),
        ("?priority=low", {"images": [image_payload()], "priority": "low"}, "priority"),
    ],
    ids=["unknown yet", "unknown yet, in the query", "of a batch, in the query", "in both"],
)
def test_an_option_that_would_be_ignored_is_named_and_refused(web: FlaskClient, db: Db, query: str, body: Any, name: str) -> None:
    problem = web.post(f"/upload_image_batch{query}", json=body).get_json(force=True)
    assert (problem["status"], problem["code"]) == (422, "not_supported")
    assert [error["pointer"] for error in problem["errors"]] == [f"/{name}"]
    assert f"`{name}`" in problem["detail"]
    assert db.batches.count_documents({}) == 0


def test_a_body_too_large_is_413_inflated_or_not(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    web = make_client(mongo, blobs_root, max_body_bytes=100_000)
    bomb = gzip.compress(b" " * 200_000)
    for response in (post_batch(web, b" " * 200_000), post_batch(web, bomb, Content_Encoding="gzip")):
        problem = response.get_json(force=True)
        assert (response.status_code, problem["code"], problem["limit"]) == (413, "body_too_large", "max_body_bytes")


def test_the_compressed_bytes_of_a_gzip_stream_are_limited_too(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    web = make_client(mongo, blobs_root, max_body_bytes=10_000)
    endless = gzip.compress(b"[]") + gzip.compress(b"") * 1000
    response = web.post("/upload_image_batch", input_stream=io.BytesIO(endless), headers={"Content-Encoding": "gzip"}, environ_overrides={"wsgi.input_terminated": True})  # fmt: skip
    assert (response.status_code, response.get_json(force=True)["code"]) == (413, "body_too_large")


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
