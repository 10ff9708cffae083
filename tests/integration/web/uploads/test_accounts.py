"""Uploads of accounts: foreign stores, idempotency keys, and whose a batch is."""

import gzip
import hashlib
import json
import random
import socket
import threading
from typing import Any, NamedTuple

import pytest
from flask.testing import FlaskClient
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser
from werkzeug.test import TestResponse

from shared.storage.mongo import Db
from tests.support.accounts import bearer, make_key, make_user
from tests.support.web_client import image_payload, make_image, post_batch

pytestmark = pytest.mark.slow
FORM = "multipart/form-data; boundary=x"
LARGE = make_image() + random.Random(1).randbytes(300_000)


class Uploaders(NamedTuple):
    """The headers of uploaders, each with the stores that the name says. ``north`` also has the store ``east``."""

    north: dict[str, str]
    south: dict[str, str]
    all: dict[str, str]


@pytest.fixture
def by(db: Db) -> Uploaders:
    return Uploaders(*(bearer(make_key(db, "uploader", stores)) for stores in (["north", "east"], ["south"], ["*"])))


def code(response: TestResponse) -> tuple[int, Any]:
    return response.status_code, response.get_json(force=True).get("code")


def form(*stores: str, files_first: bool = False, files: bytes = LARGE) -> bytes:
    metadata = [{name: value for name, value in image_payload(store_name=store).items() if name != "file"} for store in stores]
    parts = [b'--x\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n' + json.dumps(metadata).encode() + b"\r\n"]
    for _ in stores:
        parts.insert(0 if files_first else len(parts), b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + files + b"\r\n")
    return b"".join([*parts, b"--x--\r\n"])


def send_through_gunicorn(web: FlaskClient, body: bytes, sent: int, **headers: str) -> TestResponse:
    """Post a form as gunicorn passes it on. The client closes the connection after it has sent ``sent`` bytes of the body."""
    here, there = socket.socketpair()

    def send() -> None:
        here.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:sent])
        here.shutdown(socket.SHUT_WR)

    with here, there:
        sender = threading.Thread(target=send)
        sender.start()
        stream = next(RequestParser(Config(), there, ("", 0))).body
        received = {"wsgi.input": stream, "gunicorn.socket": there, "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": FORM}
        response = web.post("/upload_image_batch", headers=headers, environ_overrides=received)
        sender.join()
        return response


def test_images_of_foreign_stores_are_refused_and_those_of_ones_own_are_accepted(closed_web: FlaskClient, db: Db, by: Uploaders) -> None:
    body = [image_payload(), image_payload(store_name="south"), image_payload(timestamp="?")]
    refused = post_batch(closed_web, body, **by.north)
    assert code(refused) == (403, "foreign_store")
    assert [(error["pointer"], error["code"]) for error in refused.get_json(force=True)["errors"]] == [("/1/store_name", "foreign_store")]
    assert code(post_batch(closed_web, gzip.compress(form("north", "south")), Content_Type=FORM, Content_Encoding="gzip", **by.north)) == (403, "foreign_store")
    assert db.images.count_documents({}) == 0
    assert post_batch(closed_web, [image_payload(), image_payload(store_name="east")], **by.north).status_code == 202
    assert post_batch(closed_web, [image_payload(), image_payload(store_name="south")], **by.all).status_code == 202


def test_lenient_handling_rejects_the_images_of_foreign_stores(closed_web: FlaskClient, db: Db, by: Uploaders) -> None:
    lenient = {"Prefer": "handling=lenient", **by.north}
    body = post_batch(closed_web, [image_payload(store_name="south"), image_payload()], **lenient).get_json()
    assert (body["accepted"], body["rejected"]) == (1, 1)
    assert [(image["status"], [error["code"] for error in image.get("errors", [])]) for image in body["images"]] == [("rejected", ["foreign_store"]), ("queued", [])]
    assert db.images.distinct("store_name") == ["north"]
    assert code(post_batch(closed_web, [image_payload(store_name="south")], **lenient)) == (422, "invalid")
    whole = form("south", "north")
    assert send_through_gunicorn(closed_web, whole, len(whole), **lenient).status_code == 202


def test_a_form_of_a_foreign_store_is_refused_before_its_files_are_sent(closed_web: FlaskClient, by: Uploaders) -> None:
    body = form("north", "south")
    assert code(send_through_gunicorn(closed_web, body, 270_000, **by.north)) == (403, "foreign_store")
    for headers, sent in ((by.north, body.index(b"metadata")), (by.all, 270_000), (by.south, 270_000)):
        status = (403, "foreign_store") if headers == by.south else (400, "incomplete_body")
        assert code(send_through_gunicorn(closed_web, body, sent, **headers)) == status
    assert code(send_through_gunicorn(closed_web, body, 270_000, **{"Content-Encoding": "gzip"}, **by.north)) == (400, "bad_gzip")


def test_a_form_is_read_whole_if_its_beginning_is_not_refused(closed_web: FlaskClient, db: Db, by: Uploaders) -> None:
    for files_first in (False, True):
        body = form("east", "north", files_first=files_first)
        assert send_through_gunicorn(closed_web, body, len(body), **by.north).status_code == 202
        assert code(send_through_gunicorn(closed_web, body, len(body), **by.south)) == (403, "foreign_store")
    assert {image["file_size"] for image in db.images.find()} == {len(LARGE)}
    assert db.images.distinct("sha256") == [hashlib.sha256(LARGE).hexdigest()]
    short = form("north", "north", files=make_image())
    assert send_through_gunicorn(closed_web, short, len(short), **by.north).status_code == 202


def test_other_errors_of_the_metadata_are_those_of_the_whole_form(closed_web: FlaskClient, by: Uploaders) -> None:
    for metadata, expected in (
        (b"[", (400, "malformed_json")),
        (b"7", (422, "invalid")),
        (b"[]", (422, "invalid")),
        (b'[{"store_name": 7}, null]', (422, "invalid")),
        (b"[" + b"0," * 1001 + b"0]", (413, "too_many_images")),
    ):
        part = b"--x\r\nContent-Disposition: form-data; name=%s\r\n\r\n%s\r\n"
        body = part % (b"metadata", metadata) + part % (b"file", LARGE) + b"--x--"
        assert code(send_through_gunicorn(closed_web, body, len(body), **by.north)) == expected


def test_an_idempotency_key_belongs_to_its_account(web: FlaskClient, db: Db) -> None:
    anna = make_user(db, "anna", "uploader")
    keys = [make_key(db, "uploader", user=user) for user in (anna, anna, None)]
    first, second, other = [post_batch(web, [image_payload()], Idempotency_Key="k", **bearer(key)).get_json() for key in keys]
    anonymous = post_batch(web, [image_payload()], Idempotency_Key="k").get_json()
    assert first == second
    assert len({answer["batch_id"] for answer in (first, other, anonymous)}) == 3
    assert set(db.idempotency.distinct("_id")) == {f"user:{anna.id}:k", f"key:{keys[2].split('_')[1]}:k", "open:k"}


def test_a_batch_and_its_images_belong_to_the_account_that_uploaded_them(web: FlaskClient, db: Db) -> None:
    anna = make_user(db, "anna", "uploader")
    key = make_key(db, "uploader", user=anna)
    for headers, owner in ((bearer(key), (f"user:{anna.id}", f"key:{key.split('_')[1]}")), ({}, (None, None))):
        batch_id = post_batch(web, [image_payload()], **headers).get_json()["batch_id"]
        for document in (db.batches.find_one({"_id": batch_id}), db.images.find_one({"batch_id": batch_id})):
            assert document is not None
            assert (document["account"], document["created_by"]) == owner
        shown = web.get(f"/image_batches/{batch_id}", headers=headers).get_json()
        assert not {"account", "created_by"} & (shown.keys() | shown["images"][0].keys())
