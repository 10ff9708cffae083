"""Reading batches: lists, one batch, waiting for it, its page, and the documents beside them."""

import json
import re
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared.errors import StoreAway
from shared.ledger import batch_images, deletion, queries, sums, turns
from shared.storage.blob_keys import batch_prefix, original_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.support.ledger import process_all
from tests.support.web_client import image_payload, make_image, open_services, post_batch
from web.batches import serializers
from web.batches import views as batches
from web.http import streams

pytestmark = pytest.mark.slow


def test_pages_and_cursors_walk_through_the_same_batches_newest_first(web: FlaskClient) -> None:
    ids = [post_batch(web, [image_payload(store_name=f"store {n % 2}")]).get_json()["batch_id"] for n in range(7)][::-1]
    first = web.get("/image_batches?per_page=3")
    body = first.get_json()
    assert [batch["id"] for batch in body["batches"]] == ids[:3]
    assert (body["page"], body["per_page"], body["total"], body["pages"]) == (1, 3, 7, 3)
    assert 'rel="next"' in first.headers["Link"]
    assert 'rel="prev"' not in first.headers["Link"]
    walked = [batch["id"] for batch in body["batches"]]
    while body["next_cursor"]:
        body = web.get(f"/image_batches?per_page=3&cursor={body['next_cursor']}").get_json()
        walked += [batch["id"] for batch in body["batches"]]
    assert walked == ids
    assert web.get("/image_batches?page=99").get_json()["batches"] == []
    stored = web.get("/image_batches?store_name=store+1").get_json()
    assert [batch["id"] for batch in stored["batches"]] == [ids[1], ids[3], ids[5]]


@pytest.mark.parametrize(
    "query",
    ["page=0", "page=x", "per_page=101", "per_page=0", "foo=1", "store_name=", "status=lost", "min_score=2", "since=x", "page=1&page=2", "page=1&cursor=x", "cursor=x", "images_per_batch=1001", "since=%C2%B2", "since=--5", "until=1e999", "a/b=1", "min_score=0_1", "min_score=nan", "min_score=-0"],
)  # fmt: skip
def test_an_invalid_query_is_422(web: FlaskClient, query: str) -> None:
    assert web.get(f"/image_batches?{query}").status_code == 422


@pytest.mark.parametrize("query", ["store_name=Caf%E9", "per_page=3&store_name=%ff", "store_name=%C3"])
def test_a_filter_that_is_not_utf8_is_422_with_its_name(web: FlaskClient, query: str) -> None:
    response = web.get(f"/image_batches?{query}")
    problem = response.get_json(force=True)
    assert (response.status_code, [error["pointer"] for error in problem["errors"]]) == (422, ["/store_name"])
    assert "UTF-8" in problem["errors"][0]["detail"]


@pytest.mark.parametrize("path", ["/image_batches", "/", "/img", "/healthz"])
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_a_query_of_bytes_that_are_not_utf8_is_422(web: FlaskClient, path: str, accept: str) -> None:
    response = web.get(path, headers={"Accept": accept}, environ_overrides={"QUERY_STRING": "url=Caf\xe9"})
    assert (response.status_code, "UTF-8" in response.get_data(as_text=True)) == (422, True)


def test_a_batch_shows_every_field_of_the_contract(web: FlaskClient) -> None:
    accepted = post_batch(web, [image_payload(make_image(1), filename="a.jpg")]).get_json()
    batch = web.get(accepted["links"]["self"]).get_json()
    assert set(batch) == {"id", "status", "total", "counts", "created_at", "finished_at", "images"}
    assert batch["counts"] == {"queued": 1, "processing": 0, "done": 0, "failed": 0, "cancelled": 0}
    expected = "id batch_id index status file_path url timestamp store_name camera_id barcode extra content_type file_size width height sha256 exif quality detections model augmentations barcodes barcode_check tags annotations error filename created_at updated_at finished_at"
    assert set(batch["images"][0]) == set(expected.split())
    assert batch["images"][0]["url"] == f"http://localhost/uploads/{accepted['images'][0]['id']}.jpg"
    assert batch["images"][0]["timestamp"] == "2026-01-01T00:00:00Z"


def test_lists_contain_the_first_images_and_say_that_there_are_more(web: FlaskClient) -> None:
    post_batch(web, [image_payload() for _ in range(5)])
    batch = web.get("/image_batches?images_per_batch=2").get_json()["batches"][0]
    assert ([image["index"] for image in batch["images"]], batch["images_more"], batch["total"]) == ([0, 1], True, 5)
    assert web.get("/image_batches?images_per_batch=0").get_json()["batches"][0]["images"] == []


def test_a_list_leaves_out_the_images_beyond_its_limit_in_bytes(web: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (1, 2, 5, 5):  # the last of these batches is the first in the list
        post_batch(web, [image_payload() for _ in range(count)])
    complete = web.get("/image_batches").get_json()["batches"]
    image_bytes = len(json.dumps(complete[0]["images"][0], separators=(",", ":")))
    for fitting, expected in (
        (0, [(0, True), (0, True), (0, True), (0, True)]),
        (4, [(4, True), (0, True), (0, True), (0, True)]),
        (5, [(5, False), (0, True), (0, True), (0, True)]),
        (7, [(5, False), (2, True), (0, True), (0, True)]),
        (12, [(5, False), (5, False), (2, False), (0, True)]),
    ):
        monkeypatch.setattr(serializers, "MAX_IMAGE_BYTES", image_bytes * fitting + image_bytes // 2)
        page = web.get("/image_batches?per_page=4").get_json()
        assert [(len(batch["images"]), batch.get("images_more", False)) for batch in page["batches"]] == expected
        assert [batch["images"] for batch in page["batches"]] == [
            batch["images"][:count] for batch, (count, _) in zip(complete, expected, strict=True)
        ]
        assert (page["total"], page["next_cursor"]) == (4, None)
    whole = web.get(f"/image_batches/{complete[0]['id']}").get_json()
    assert (len(whole["images"]), "images_more" in whole) == (5, False)


def test_images_deleted_singly_are_neither_shown_nor_announced(web: FlaskClient, db: Db) -> None:
    accepted = post_batch(web, [image_payload() for _ in range(4)]).get_json()
    path = accepted["links"]["self"]
    db.images.update_one({"_id": accepted["images"][1]["id"]}, {"$set": {"status": "deleting"}})
    db.images.delete_one({"_id": accepted["images"][3]["id"]})
    for limit, expected in ((0, ([], True)), (1, ([0], True)), (2, ([0, 2], False)), (4, ([0, 2], False))):
        (listed,) = web.get(f"/image_batches?images_per_batch={limit}").get_json()["batches"]
        assert web.get(f"{path}?images_per_batch={limit}").get_json() == listed
        assert ([image["index"] for image in listed["images"]], listed.get("images_more", False)) == expected
    assert [image["index"] for image in web.get(path).get_json()["images"]] == [0, 2]
    db.images.update_many({}, {"$set": {"status": "deleting"}})
    assert "images_more" not in web.get(f"{path}?images_per_batch=0").get_json()


def test_a_large_batch_is_sent_in_pieces(web: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    path = post_batch(web, [image_payload(filename=f"{number}.jpg") for number in range(9)]).get_json()["links"]["self"]
    small = web.get(path)
    assert small.content_length == len(small.data) == web.head(path).content_length
    monkeypatch.setattr(streams, "_PIECE_BYTES", 1000)
    monkeypatch.setattr(streams, "_BUFFER_BYTES", 2000)
    large = web.get(path)
    assert large.content_length is None
    assert large.data == small.data
    assert web.head(path).status_code == 200


def test_a_batch_that_is_deleted_while_it_is_read_is_not_sent_in_part(web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_images, "_PIECE", 2)
    batch_id = post_batch(web, [image_payload() for _ in range(5)]).get_json()["batch_id"]
    read_piece = batch_images._read_piece

    def delete_and_read(*args: Any) -> Any:
        if args[1]["index"] == {"$gt": 1}:
            deletion.begin_delete(db, batch_id, None)
        return read_piece(*args)

    monkeypatch.setattr(batch_images, "_read_piece", delete_and_read)
    response = web.get(f"/image_batches/{batch_id}")
    assert (response.status_code, response.get_json(force=True)["code"]) == (404, "not_found")


def test_the_page_of_a_batch_shows_a_hundred_images_at_a_time(web: FlaskClient) -> None:
    batch_id = post_batch(web, [image_payload(filename=f"shot {number}.jpg") for number in range(203)]).get_json()["batch_id"]
    for page, expected in (("", range(100)), ("?page=2", range(100, 200)), ("?page=3", range(200, 203)), ("?page=4", range(0)), ("?page=1000000000", range(0))):
        html = web.get(f"/batches/{batch_id}{page}").get_data(as_text=True)
        assert re.findall(r"shot (\d+)\.jpg</", html) == [str(number) for number in expected]
        assert " of 3</span>" in html
    assert web.get(f"/batches/{batch_id}?page=0").status_code == 422


def test_a_deleted_batch_and_its_files_are_gone_and_the_ledger_still_balances(web: FlaskClient, db: Db) -> None:
    accepted = post_batch(web, [image_payload(), image_payload()]).get_json()
    assert web.delete(accepted["links"]["self"]).status_code == 204
    for path in (accepted["links"]["self"], accepted["images"][0]["file_path"], f"/batches/{accepted['batch_id']}"):
        assert web.get(path).status_code == 404
    assert web.delete(accepted["links"]["self"]).status_code == 404
    assert web.get("/image_batches").get_json()["total"] == 0
    sums.refresh(db, 0)
    metrics = web.get("/metrics").get_data(as_text=True)
    assert 'shelfsight_ledger_images{state="received"} 2.0' in metrics
    assert 'shelfsight_ledger_images{state="deleted"} 2.0' in metrics


def test_the_files_of_a_deleted_batch_are_gone_even_if_its_spool_cannot_be_deleted(
    web: FlaskClient, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = post_batch(web, [image_payload()]).get_json()
    blobs = LocalBlobs(blobs_root)
    blobs.write(original_key(accepted["images"][0]["id"], "jpg"), [b"x"])

    def fail(*_: object) -> None:
        raise StoreAway("an input/output error")

    monkeypatch.setattr(LocalBlobs, "delete", fail)
    assert web.delete(accepted["links"]["self"]).status_code == 204
    assert list(blobs.list(batch_prefix(accepted["batch_id"]))) == []


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [("/limits", "localhost", 200), ("/limits", "", 421), ("http://evil.example/limits", "localhost", 421), ("http://127.0.0.1/limits", "localhost", 200)],
)
def test_every_host_that_a_request_names_must_be_allowed(web: FlaskClient, target: str, host: str, status: int) -> None:
    around = {"RAW_URI": target, "HTTP_HOST": host}
    assert web.get("/limits", environ_overrides=around).status_code == status


def test_limits_openapi_docs_and_pages_are_served(web: FlaskClient) -> None:
    limits = web.get("/limits").get_json()
    assert set(limits) == {
        "max_body_bytes",
        "max_images",
        "max_image_bytes",
        "max_pixels",
        "formats",
        "augmentations",
        "default_augmentations",
    }
    api = web.get("/openapi.json").get_json()
    assert api["openapi"].startswith("3.1")
    assert "/upload_image_batch" in api["paths"]
    batch = post_batch(web, [image_payload(filename="<script>alert(1)</script>")]).get_json()["batch_id"]
    for path in ("/", "/docs", f"/batches/{batch}", "/static/style.css"):
        response = web.get(path)
        assert response.status_code == 200
        assert b"<script>alert" not in response.data
        response.close()


def test_errors_of_the_http_layer_are_problem_documents_too(web: FlaskClient) -> None:
    missing = web.get("/nothing/here", headers={"X-Request-ID": "mine-1"})
    assert (missing.status_code, missing.mimetype) == (404, "application/problem+json")
    assert missing.get_json(force=True)["request_id"] == missing.headers["X-Request-ID"] == "mine-1"
    wrong = web.put("/image_batches")
    assert (wrong.status_code, wrong.get_json(force=True)["code"]) == (405, "method_not_allowed")
    assert "GET" in wrong.headers["Allow"]
    assert web.get("/image_batches?wait=1").status_code == 422


@pytest.mark.parametrize("path", ["/image_batches/{batch}", "/batches/{batch}", "/image_batches"])
def test_an_internal_error_reveals_nothing_of_the_service(web: FlaskClient, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    batch = post_batch(web, [image_payload()]).get_json()["batch_id"]

    def fails(*_: object) -> None:
        raise RuntimeError(f"a secret in {__file__}")

    for call in ("get_batch", "page_of_batches"):
        monkeypatch.setattr(queries, call, fails)
    response = web.get(path.format(batch=batch), headers={"X-Request-ID": "mine-2"})
    assert (response.status_code, response.mimetype, response.headers["X-Request-ID"]) == (500, "application/problem+json", "mine-2")
    assert response.get_json(force=True) == {
        "type": "/docs#internal_error",
        "title": "Internal error",
        "status": 500,
        "detail": "Internal error; report the request ID to the operator, who can find it in the log.",
        "instance": path.format(batch=batch),
        "code": "internal_error",
        "request_id": "mine-2",
    }


def links(response: TestResponse) -> dict[str, str]:
    return {name: where for where, name in re.findall(r'<([^>]+)>; rel="(\w+)"', response.headers.get("Link", ""))}


def test_a_page_links_to_the_first_the_last_and_its_neighbours(web: FlaskClient) -> None:
    for _ in range(5):
        post_batch(web, [image_payload(store_name="a b")])
    query = "per_page=2&store_name=a+b"

    def to(page: int) -> str:
        return f"http://localhost/image_batches?{query}&page={page}"

    assert links(web.get(f"/image_batches?{query}")) == {"first": to(1), "last": to(3), "next": to(2)}
    assert links(web.get(f"/image_batches?{query}&page=2")) == {"first": to(1), "last": to(3), "prev": to(1), "next": to(3)}
    assert links(web.get(f"/image_batches?{query}&page=3")) == {"first": to(1), "last": to(3), "prev": to(2)}
    assert links(web.get(f"/image_batches?{query}&page=9")) == {"first": to(1), "last": to(3), "prev": to(3)}
    body = web.get(to(2)).get_json()
    assert (body["page"], len(body["batches"])) == (2, 2)
    by_cursor = web.get(f"/image_batches?{query}&cursor=newest")
    assert links(by_cursor) == {"next": f"http://localhost/image_batches?{query}&cursor={by_cursor.get_json()['next_cursor']}"}


def test_a_wait_is_limited_to_30_seconds(web: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    monkeypatch.setattr(batches, "_wait_until_closed", lambda _batch_id, _stores, seconds: waits.append(seconds))
    accepted = post_batch(web, [image_payload()]).get_json()
    for seconds in (0, 30, 31, 10**30):
        assert web.get(f"{accepted['links']['self']}?wait={seconds}").status_code == 200
    assert waits == [30, 30, 30]


def test_a_waiting_request_responds_when_the_batch_is_finished(web: FlaskClient, db: Db) -> None:
    accepted = post_batch(web, [image_payload()]).get_json()
    turns.repair(db)
    worker = threading.Timer(1, process_all, [db])
    began = time.monotonic()
    worker.start()
    assert web.get(accepted["links"]["self"] + "?wait=30").get_json()["status"] == "done"
    assert 0.9 < time.monotonic() - began < 29
    worker.join()


def test_while_as_many_wait_as_may_the_next_response_is_immediate_and_unfinished(web: FlaskClient) -> None:
    accepted = post_batch(web, [image_payload()]).get_json()
    with ExitStack() as others:
        for _ in range(4):  # a quarter of 16 threads
            others.enter_context(open_services[-1].wait_slots)
        began = time.monotonic()
        assert web.get(accepted["links"]["self"] + "?wait=30").get_json()["status"] == "queued"
        assert time.monotonic() - began < 29


def test_a_wait_ends_when_its_time_is_over(web: FlaskClient) -> None:
    accepted = post_batch(web, [image_payload()]).get_json()
    began = time.monotonic()
    assert web.get(accepted["links"]["self"] + "?wait=1").get_json()["status"] == "queued"
    assert 0.9 < time.monotonic() - began < 29
    assert web.get(accepted["links"]["self"] + "?wait=99x").status_code == 422
