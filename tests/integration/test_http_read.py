"""Lists, one batch, files, health, pages: what a reader gets."""

import os
import re
import threading
import time
from contextlib import ExitStack
from email.utils import formatdate
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared import settings, signs
from shared.blobs import LocalBlobs
from shared.contract import BATCHES
from shared.layout import original_key, spool_key, variant_key
from shared.ledger import pages, turns
from shared.mongo import Db
from tests.integration.http import client, item, opened, picture, post
from tests.integration.ledger_kit import work_off
from web import batches

pytestmark = pytest.mark.slow


@pytest.fixture
def web(db: Db, mongo: settings.Mongo, blobs_root: Path) -> FlaskClient:
    return client(mongo, blobs_root)


def test_pages_and_cursors_walk_through_the_same_batches_newest_first(web: FlaskClient) -> None:
    ids = [post(web, [item(store_name=f"store {n % 2}")]).get_json()["batch_id"] for n in range(7)][::-1]
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
def test_nonsense_in_a_query_is_422(web: FlaskClient, query: str) -> None:
    assert web.get(f"/image_batches?{query}").status_code == 422


def test_a_batch_shows_every_field_of_the_contract(web: FlaskClient) -> None:
    said = post(web, [item(picture(1), filename="a.jpg")]).get_json()
    batch = web.get(said["links"]["self"]).get_json()
    assert set(batch) == {"id", "status", "total", "counts", "created_at", "finished_at", "images"}
    assert batch["counts"] == {"queued": 1, "processing": 0, "done": 0, "failed": 0, "cancelled": 0}
    expected = "id batch_id index status file_path url timestamp store_name camera_id barcode extra content_type file_size width height sha256 exif quality detections model augmentations barcodes barcode_check tags error filename created_at updated_at finished_at"
    assert set(batch["images"][0]) == set(expected.split())
    assert batch["images"][0]["url"] == f"http://localhost/uploads/{said['images'][0]['id']}.jpg"
    assert batch["images"][0]["timestamp"] == "2026-01-01T00:00:00Z"


def test_lists_carry_the_first_images_and_say_that_there_are_more(web: FlaskClient) -> None:
    post(web, [item() for _ in range(5)])
    batch = web.get("/image_batches?images_per_batch=2").get_json()["batches"][0]
    assert ([image["index"] for image in batch["images"]], batch["images_more"], batch["total"]) == ([0, 1], True, 5)
    assert web.get("/image_batches?images_per_batch=0").get_json()["batches"][0]["images"] == []


def test_an_original_is_served_byte_for_byte_at_once_with_ranges_and_validators(web: FlaskClient) -> None:
    data = picture(5)
    image = post(web, [item(picture(4)), item(data)]).get_json()["images"][1]
    whole = web.get(image["file_path"])
    assert whole.data == data
    assert (whole.headers["Content-Type"], whole.headers["X-Content-Type-Options"]) == ("image/jpeg", "nosniff")
    assert "immutable" in whole.headers["Cache-Control"]
    part = web.get(image["file_path"], headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.data, part.headers["Content-Range"]) == (
        206,
        data[10:20],
        f"bytes 10-19/{len(data)}",
    )
    for said, begins in (("bytes=-7", len(data) - 7), (f"Bytes=-{len(data) + 1}", 0), (f"bytes=5-{10**19}", 5)):
        part = web.get(image["file_path"], headers={"Range": said})
        assert (part.status_code, part.data) == (206, data[begins:])
        assert part.headers["Content-Range"] == f"bytes {begins}-{len(data) - 1}/{len(data)}"
    for ignored in ("lines=0-1", "bytes=0-1,4-5", "junk", "bytes=-", "bytes=5-2"):
        answer = web.get(image["file_path"], headers={"Range": ignored})
        assert (answer.status_code, answer.data) == (200, data)
    for outside in (f"bytes={len(data)}-", "bytes=-0"):
        beyond = web.get(image["file_path"], headers={"Range": outside})
        assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(data)}")
    etag = whole.headers["ETag"]
    for headers in ({}, {"Range": "bytes=0-3"}):
        assert web.get(image["file_path"], headers={"If-None-Match": etag, **headers}).status_code == 304
        changed = web.get(image["file_path"], headers={"If-Match": '"another"', **headers})
        assert (changed.status_code, changed.get_json(force=True)["code"]) == (412, "precondition_failed")
    assert web.get(image["file_path"], headers={"If-Match": etag}).data == data
    for if_range, status in ((etag, 206), ('"another"', 200)):
        assert web.get(image["file_path"], headers={"If-Range": if_range, "Range": "bytes=0-3"}).status_code == status
    head = web.head(image["file_path"], headers={"Range": "bytes=0-9"})  # for GET alone
    assert (head.data, head.headers["Content-Length"]) == (b"", str(len(data)))


def said_by_a_file_server(path: Path) -> dict[str, str]:
    """Give the validators that nginx makes of a file."""
    found = path.stat()
    seconds = found.st_mtime_ns // 10**9
    return {"ETag": f'"{seconds:x}-{found.st_size:x}"', "Last-Modified": formatdate(seconds, usegmt=True)}


def validators(web: FlaskClient, path: str) -> dict[str, str]:
    answer = web.get(path)
    assert answer.status_code == 200
    return {name: answer.headers[name] for name in ("ETag", "Last-Modified")}


def test_validators_are_those_of_a_file_server(web: FlaskClient, db: Db, blobs_root: Path) -> None:
    image = post(web, [item()]).get_json()["images"][0]["id"]
    db.images.update_one({"_id": image}, {"$set": {"status": "done", "work.fence": 1}})
    keys = {f"/uploads/{image}.jpg": original_key(image, "jpg"), f"/uploads/{image}/thumb.jpg": variant_key(image, 1, "thumb")}
    for number, (path, key) in enumerate(keys.items()):
        LocalBlobs(blobs_root).write(key, [picture(number)])
        for nanoseconds in (0, 999_999_999):
            os.utime(blobs_root / key, ns=(0, 1_700_000_000 * 10**9 + nanoseconds))
            assert validators(web, path) == said_by_a_file_server(blobs_root / key)
        assert validators(web, path)["ETag"] == f'"6553f100-{len(picture(number)):x}"'


def test_the_validators_of_an_original_change_once_when_it_leaves_the_spool(web: FlaskClient, blobs_root: Path) -> None:
    data = picture(5)
    said = post(web, [item(picture(4)), item(data)]).get_json()
    image = said["images"][1]
    spool = blobs_root / spool_key(said["batch_id"])
    os.utime(spool, (1_700_000_000, 1_700_000_000))
    before = validators(web, image["file_path"])
    assert before == {"ETag": f'"6553f100-{len(data):x}"', "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT"}
    LocalBlobs(blobs_root).write(original_key(image["id"], "jpg"), [data])
    after = validators(web, image["file_path"])
    assert after == said_by_a_file_server(blobs_root / original_key(image["id"], "jpg"))
    spool.unlink()
    assert validators(web, image["file_path"]) == after
    stale = web.get(image["file_path"], headers={"If-None-Match": before["ETag"]})
    assert (stale.status_code, stale.data) == (200, data)


NOW, SOONER, LATER = (f"Tue, 14 Nov 2023 22:13:{second} GMT" for second in (20, 19, 21))
PART = {"Range": "bytes=0-3"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Modified-Since": NOW}, 304),
        ({"If-Modified-Since": LATER}, 304),
        ({"If-Modified-Since": SOONER}, 200),
        ({"If-Modified-Since": NOW, **PART}, 304),
        ({"If-None-Match": '"another"', "If-Modified-Since": LATER}, 200),  # the tag knows better
        ({"If-None-Match": "*"}, 304),
        ({"If-Unmodified-Since": NOW}, 200),
        ({"If-Unmodified-Since": SOONER}, 412),
        ({"If-Unmodified-Since": SOONER, "Range": "bytes=999999-"}, 412),  # the condition comes before the range
        ({"If-Range": NOW, **PART}, 206),
        ({"If-Range": SOONER, **PART}, 200),
        ({"If-Range": LATER, **PART}, 200),
        ({"If-Range": "W/{etag}", **PART}, 200),
        ({"If-Range": "{etag}", **PART}, 206),
        ({"If-Range": '"another"', "Range": "bytes=999999-"}, 200),
        ({"If-Match": "{etag}", "If-Unmodified-Since": SOONER}, 200),
    ],
)
def test_conditions_are_about_the_time_and_the_tag(
    web: FlaskClient, blobs_root: Path, headers: dict[str, str], status: int
) -> None:
    said = post(web, [item()]).get_json()
    os.utime(blobs_root / spool_key(said["batch_id"]), (1_700_000_000, 1_700_000_000))
    path = said["images"][0]["file_path"]
    known = validators(web, path)
    answer = web.get(path, headers={name: value.replace("{etag}", known["ETag"]) for name, value in headers.items()})
    assert answer.status_code == status
    if status == 304:
        assert answer.headers["ETag"] == known["ETag"]
        assert answer.data == b""
    else:
        assert len(answer.data) == {200: len(picture()), 206: 4}.get(status, len(answer.data))


def test_what_is_not_made_yet_is_pending_and_what_never_was_is_not_found(web: FlaskClient) -> None:
    image = post(web, [item(picture(1, kind="PNG"))]).get_json()["images"][0]["id"]
    assert web.get(f"/uploads/{image}.png").status_code == 200
    for path in (f"/uploads/{image}.jpg", f"/uploads/{image}/thumb.jpg", f"/uploads/{image}/rotate.jpg"):
        answer = web.get(path)
        assert (answer.status_code, answer.get_json(force=True)["code"]) == (404, "image_pending")
        assert answer.headers["Retry-After"]
    for path in (f"/uploads/{image}.gif", f"/uploads/{image}/nope.jpg", "/uploads/x.jpg", f"/uploads/{'0' * 36}.jpg"):
        assert web.get(path).get_json(force=True)["code"] == "not_found"


def test_a_deleted_batch_and_its_files_are_gone_and_the_ledger_still_balances(web: FlaskClient) -> None:
    said = post(web, [item(), item()]).get_json()
    assert web.delete(said["links"]["self"]).status_code == 204
    for path in (said["links"]["self"], said["images"][0]["file_path"], f"/batches/{said['batch_id']}"):
        assert web.get(path).status_code == 404
    assert web.delete(said["links"]["self"]).status_code == 404
    assert web.get("/image_batches").get_json()["total"] == 0
    metrics = web.get("/metrics").get_data(as_text=True)
    assert 'shelfsight_ledger_images{state="received"} 2.0' in metrics
    assert 'shelfsight_ledger_images{state="deleted"} 2.0' in metrics


def test_a_document_removed_by_hand_shows_in_the_metric(web: FlaskClient, db: Db) -> None:
    said = post(web, [item(), item()]).get_json()
    db.images.delete_one({"_id": said["images"][0]["id"]})
    metrics = web.get("/metrics").get_data(as_text=True)
    assert 'state="received"} 2.0' in metrics
    assert 'state="pending"} 1.0' in metrics


def test_readyz_says_what_is_missing(web: FlaskClient) -> None:
    answer = web.get("/readyz")
    checks = answer.get_json()["checks"]
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.get_json()["code"] == "not_ready"
    assert {name: check["ok"] for name, check in checks.items()} == {
        "mongodb": True,
        "redis": False,
        "blobs": True,
        "disk": True,
        "worker": False,
        "model": True,
        "draining": True,
    }
    assert web.get("/healthz").status_code == 200


def test_readyz_says_that_no_worker_can_use_its_model_until_one_can(web: FlaskClient, db: Db) -> None:
    signs.beat(db, "one", BATCHES, "model_unusable")
    checks = web.get("/readyz").get_json()["checks"]
    assert {name for name, check in checks.items() if not check["ok"]} >= {"worker", "model"}
    assert "VISION_MODEL" in checks["model"]["detail"]
    signs.beat(db, "another", BATCHES)
    checks = web.get("/readyz").get_json()["checks"]
    assert checks["worker"]["ok"]
    assert checks["model"]["ok"]


def test_a_server_that_is_drained_is_not_ready_and_serves_on(
    mongo: settings.Mongo, db: Db, blobs_root: Path, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain = tmp_path / "drain"
    monkeypatch.setenv("WEB_DRAIN_FILE", str(drain))
    signs.beat(db, "a worker", BATCHES)
    web = client(mongo, blobs_root, redis_url)
    assert web.get("/readyz").status_code == 200
    drain.touch()
    answer = web.get("/readyz")
    checks = answer.get_json()["checks"]
    assert (answer.status_code, answer.get_json()["code"]) == (503, "not_ready")
    assert [name for name, check in checks.items() if not check["ok"]] == ["draining"]
    assert "drained" in checks["draining"]["detail"]
    assert str(drain) not in answer.get_data(as_text=True)
    said = post(web, [item()])
    assert said.status_code == 202
    assert all(web.get(path).status_code == 200 for path in (said.headers["Location"], "/image_batches", "/healthz", "/"))
    drain.unlink()
    assert web.get("/readyz").status_code == 200


def test_readyz_blames_nobody_else_for_a_database_that_is_away(mongo: settings.Mongo, blobs_root: Path) -> None:
    nowhere = mongo.model_copy(update={"url": "mongodb://127.0.0.1:1/", "server_selection_timeout_s": 0.2})
    checks = client(nowhere, blobs_root).get("/readyz").get_json()["checks"]
    assert [name for name, check in checks.items() if check["ok"]] == ["blobs", "disk", "draining"]
    assert all("without MongoDB" in checks[name]["detail"] for name in ("worker", "model"))


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [("/limits", "localhost", 200), ("/limits", "", 421), ("http://evil.example/limits", "localhost", 421), ("http://127.0.0.1/limits", "localhost", 200)],
)
def test_every_host_that_a_request_names_must_be_ours(web: FlaskClient, target: str, host: str, status: int) -> None:
    around = {"RAW_URI": target, "HTTP_HOST": host}
    assert web.get("/limits", environ_overrides=around).status_code == status


def test_limits_openapi_docs_and_pages_answer(web: FlaskClient) -> None:
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
    batch = post(web, [item(filename="<script>alert(1)</script>")]).get_json()["batch_id"]
    for path in ("/", "/docs", f"/batches/{batch}", "/static/style.css"):
        answer = web.get(path)
        assert answer.status_code == 200
        assert b"<script>alert" not in answer.data
        answer.close()


def test_errors_of_the_http_layer_are_problems_too(web: FlaskClient) -> None:
    missing = web.get("/nothing/here", headers={"X-Request-ID": "mine-1"})
    assert (missing.status_code, missing.mimetype) == (404, "application/problem+json")
    assert missing.get_json(force=True)["request_id"] == missing.headers["X-Request-ID"] == "mine-1"
    wrong = web.put("/image_batches")
    assert (wrong.status_code, wrong.get_json(force=True)["code"]) == (405, "method_not_allowed")
    assert "GET" in wrong.headers["Allow"]
    assert web.get("/image_batches?wait=1").status_code == 422


@pytest.mark.parametrize("path", ["/image_batches/{batch}", "/batches/{batch}", "/image_batches"])
def test_a_fault_of_ours_is_a_problem_that_tells_nothing_of_us(web: FlaskClient, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    batch = post(web, [item()]).get_json()["batch_id"]

    def fails(*_: object) -> None:
        raise RuntimeError(f"a secret in {__file__}")

    for call in ("get_batch", "page_of_batches"):
        monkeypatch.setattr(pages, call, fails)
    answer = web.get(path.format(batch=batch), headers={"X-Request-ID": "mine-2"})
    assert (answer.status_code, answer.mimetype, answer.headers["X-Request-ID"]) == (500, "application/problem+json", "mine-2")
    assert answer.get_json(force=True) == {
        "type": "/docs#internal_error",
        "title": "Internal error",
        "status": 500,
        "detail": "Something went wrong here; the request id helps to find it.",
        "instance": path.format(batch=batch),
        "code": "internal_error",
        "request_id": "mine-2",
    }


def links(answer: TestResponse) -> dict[str, str]:
    return {name: where for where, name in re.findall(r'<([^>]+)>; rel="(\w+)"', answer.headers.get("Link", ""))}


def test_a_page_names_the_first_the_last_and_its_neighbours(web: FlaskClient) -> None:
    for _ in range(5):
        post(web, [item(store_name="a b")])
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


def test_a_longer_wait_than_half_a_minute_is_half_a_minute(web: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(batches, "_wait", lambda _batch_id, seconds: asked.append(seconds))
    said = post(web, [item()]).get_json()
    for seconds in (0, 30, 31, 10**30):
        assert web.get(f"{said['links']['self']}?wait={seconds}").status_code == 200
    assert asked == [30, 30, 30]


def test_who_waits_is_answered_when_the_batch_is_finished(web: FlaskClient, db: Db) -> None:
    said = post(web, [item()]).get_json()
    turns.repair(db)
    worker = threading.Timer(1, work_off, [db])
    worker.start()
    began = time.monotonic()
    assert web.get(said["links"]["self"] + "?wait=30").get_json()["status"] == "done"
    assert 0.9 < time.monotonic() - began < 15
    worker.join()


def test_where_many_wait_the_next_is_answered_at_once_unfinished(web: FlaskClient) -> None:
    said = post(web, [item()]).get_json()
    with ExitStack() as others:
        for _ in range(4):  # a quarter of 16 threads
            others.enter_context(opened[-1].waiters)
        began = time.monotonic()
        assert web.get(said["links"]["self"] + "?wait=30").get_json()["status"] == "queued"
        assert time.monotonic() - began < 15


def test_waiting_holds_no_more_than_its_time(web: FlaskClient) -> None:
    said = post(web, [item()]).get_json()
    began = time.monotonic()
    assert web.get(said["links"]["self"] + "?wait=1").get_json()["status"] == "queued"
    assert 0.9 < time.monotonic() - began < 10
    assert web.get(said["links"]["self"] + "?wait=99x").status_code == 422
