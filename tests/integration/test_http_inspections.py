"""One picture by URL or by hand: asked for once, waited for, answered many times; and what is said when nothing comes of it."""

import hashlib
import io
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared import settings
from shared.blobs import LocalBlobs
from shared.contract import AUGMENTATIONS, INSPECTIONS
from shared.errors import (
    BadPicture,
    Busy,
    NotAnImage,
    ShelfsightError,
    SourceTooLarge,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
    UrlRefused,
)
from shared.inspections import jobs, results
from shared.layout import INCOMING, incoming_key, made_key
from shared.mongo import Db
from tests.integration.http import client, opened, picture
from tests.integration.inspector import Inspector
from tests.stack import until
from web.answers import Answers
from web.edges import EDGES
from web.openapi.models import Awaited, Description, Look

pytestmark = pytest.mark.slow

URL = "https://example.org/shelf.jpg"
IMG = f"/img?{quote(URL, safe='')}"
LOOK = f"/?url={quote(URL, safe='')}"
JSON = {"Accept": "application/json"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
IMPATIENT = settings.Inspect(wait_s=0.05, per_minute=10_000, max_source_bytes=100_000)


@pytest.fixture
def web(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> FlaskClient:
    return client(mongo, blobs_root, redis_url, inspect=IMPATIENT)


@pytest.fixture
def inspector(db: Db, blobs_root: Path) -> Inspector:
    return Inspector(db, blobs_root)


def code(answer: TestResponse) -> str:
    said: str = answer.get_json(force=True)["code"]
    return said


def pointers(answer: TestResponse) -> list[str]:
    return [error["pointer"] for error in answer.get_json(force=True)["errors"]]


def forget_answers() -> None:
    """Let the web process know nothing any more but what is in the database."""
    for services in opened:
        services.answers = Answers()


def age(db: Db) -> None:
    """Let all that is known be no longer fresh."""
    db.inspections.update_many({}, [{"$set": {"fresh_until": {"$subtract": ["$fresh_until", 1_000_000]}}}])
    forget_answers()


# ---------------------------------------------------------------- asking


def test_a_picture_is_asked_for_waited_for_and_described(web: FlaskClient, inspector: Inspector) -> None:
    first = web.post(IMG)
    assert (first.status_code, first.headers["Retry-After"], first.headers["Cache-Control"]) == (202, "1", "no-store")
    said = Awaited.model_validate(first.get_json())
    assert (said.status, said.source, said.links["self"]) == ("queued", URL, first.headers["Location"])
    assert web.get(first.headers["Location"]).get_json()["status"] == "queued"
    result = inspector.finish()
    answer = web.post(IMG)
    assert answer.status_code == 200
    body = answer.get_json()
    Description.model_validate(body)
    assert list(body) == [
        "source", "format", "mode", "width", "height", "bytes", "frames", "sha256", "exif", "icc", "phash", "brightness", "sharpness",
        "dominant_colors", "detections", "model", "barcodes", "url", "links",
    ]  # fmt: skip
    assert (body["source"], body["url"]) == (URL, f"http://localhost/pictures/{result}/original.jpg")
    assert "Cache-Control" not in answer.headers
    later = web.get(body["links"]["self"])
    assert (later.get_json(), later.headers["ETag"]) == (body, answer.headers["ETag"])


def test_a_dream_is_another_inspection_with_a_picture_more(web: FlaskClient, inspector: Inspector) -> None:
    assert web.post(IMG).status_code == 202
    inspector.finish()
    dreaming = f"/img?url={quote(URL)}&effect=deepdream&layer=2&strength=0.25"
    assert web.post(dreaming).status_code == 202
    result = inspector.finish()
    effect = web.post(dreaming).get_json()["effect"]
    assert effect == {"name": "deepdream", "layer": 2, "strength": 0.25, "url": f"http://localhost/pictures/{result}/deepdream.jpg"}
    assert web.get(effect["url"]).mimetype == "image/jpeg"
    assert web.post(f"{IMG}&effect=deepdream&strength=.25&layer=2").get_json()["effect"] == effect
    assert web.post("/img", json={"url": URL, "effect": "deepdream", "layer": 2, "strength": 0.25}).get_json()["effect"] == effect


def test_a_picture_is_looked_at_as_json_and_as_a_page(web: FlaskClient, inspector: Inspector) -> None:
    assert web.get(LOOK, headers=JSON).status_code == 202
    result = inspector.finish(broken="shear")
    answer = web.get(LOOK, headers=JSON)
    body = answer.get_json()
    Look.model_validate(body)
    assert set(body) == {"source", "image", "augmentations", "seed", "links"}
    assert set(body["image"]) == {"format", "mode", "width", "height", "bytes", "frames", "sha256", "url"}
    assert [made["name"] for made in body["augmentations"]] == list(AUGMENTATIONS)
    by_name = {made["name"]: made for made in body["augmentations"]}
    assert by_name["shear"] == {"name": "shear", "error": "augmentation_failed", "url": None}
    assert by_name["rotate"] == {"name": "rotate", "params": {"amount": 0.5}, "url": f"http://localhost/pictures/{result}/rotate.jpg"}
    for headers in ({}, {"Accept": "*/*"}, BROWSER):
        page = web.get(LOOK, headers=headers)
        assert (page.status_code, page.mimetype, page.headers["Vary"]) == (200, "text/html", "Accept")
        for name in AUGMENTATIONS:
            assert name.replace("_", " ") in page.text
            assert (f'src="/pictures/{result}/{name}.jpg"' in page.text) is (name != "shear")
        assert "<script" not in page.text
        assert page.headers["ETag"] != answer.headers["ETag"]
    assert web.get(body["links"]["self"], headers=BROWSER).data == web.get(LOOK, headers=BROWSER).data
    assert web.get(f"{body['links']['self']}?format=json", headers=BROWSER).get_json() == body
    assert web.get(body["links"]["self"]).get_json() == body


def test_chosen_augmentations_and_a_seed_are_another_recipe(web: FlaskClient, inspector: Inspector) -> None:
    path = f"{LOOK}&augmentations=noise,rotate&seed=7"
    web.get(path)
    inspector.finish()
    body = web.get(path, headers=JSON).get_json()
    assert ([made["name"] for made in body["augmentations"]], body["seed"]) == (["noise", "rotate"], 7)
    for query, pointer in (("augmentations=noise,nope", "/augmentations"), ("seed=-1", "/seed"), ("page=2", "/page"), ("wait=x", "/wait")):
        wrong = web.get(f"{LOOK}&{query}", headers=JSON)
        assert (wrong.status_code, code(wrong), pointers(wrong)) == (422, "invalid", [pointer])


def test_who_waits_is_answered_when_it_is_done(web: FlaskClient, db: Db, inspector: Inspector) -> None:
    with ThreadPoolExecutor(3) as pool:
        other, third = (web.application.test_client() for _ in range(2))
        asked = pool.submit(web.post, f"{IMG}&wait=30")
        until(lambda: db.inspections.count_documents({}), 20, "the inspection")
        job_id = db.inspections.distinct("_id")[0]
        joined = pool.submit(other.post, f"{IMG}&wait=30")
        watched = pool.submit(third.get, f"/inspections/{job_id}?wait=30")
        time.sleep(0.2)
        began = time.monotonic()
        inspector.finish()
        assert [future.result().status_code for future in (asked, joined, watched)] == [200, 200, 200]
        assert time.monotonic() - began < 20


def test_many_who_ask_at_once_have_one_job_and_few_bells(web: FlaskClient, db: Db, redis_url: str, inspector: Inspector) -> None:
    bells: Any = redis.Redis.from_url(redis_url)
    bells.delete(INSPECTIONS.queue)
    app, start = web.application, threading.Barrier(50)

    def ask(number: int) -> int:
        start.wait(30)
        return app.test_client().post(f"{IMG}&wait=0", environ_overrides={"REMOTE_ADDR": f"192.0.2.{number}"}).status_code

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(ask, range(50))) == {202}
    assert db.inspections.count_documents({}) == 1
    assert bells.llen(INSPECTIONS.queue) == 1
    bells.close()
    inspector.finish()
    assert web.post(IMG).status_code == 200


def test_as_many_wait_as_may_and_the_others_are_told_at_once(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> None:
    web = client(mongo, blobs_root, redis_url, threads=8, inspect=IMPATIENT)
    held = [opened[-1].waiters.acquire(blocking=False) for _ in range(3)]
    assert held == [True, True, False]  # a quarter of the threads
    began = time.monotonic()
    first = web.post(f"{IMG}&wait=30")
    assert first.status_code == 202
    assert web.get(f"{first.headers['Location']}?wait=30").status_code == 202
    assert time.monotonic() - began < 20
    opened[-1].waiters.release()
    assert web.post(f"{IMG}&wait=0").status_code == 202
    assert opened[-1].waiters.acquire(blocking=False)  # who waited made room again


# ---------------------------------------------------------------- what is known


def test_a_hot_answer_costs_no_database(web: FlaskClient, db: Db, inspector: Inspector) -> None:
    web.get(LOOK)
    inspector.finish()
    known = web.get(LOOK).headers["ETag"]
    db.inspections.delete_many({})
    db.inspection_results.delete_many({})
    assert web.get(LOOK).headers["ETag"] == known
    assert web.get(LOOK, headers={"Host": "127.0.0.1:9"}).status_code == 202  # its links would be wrong


def test_an_answer_says_how_long_it_is_good_and_whether_it_changed(web: FlaskClient, inspector: Inspector) -> None:
    web.get(LOOK)
    inspector.finish(fresh_s=200)
    first = web.get(LOOK, headers=JSON)
    policy, _, left = first.headers["Cache-Control"].partition("max-age=")
    assert policy == "private, "
    assert 100 < int(left) <= 200
    for known, status in ((first.headers["ETag"], 304), ('"other"', 200)):
        for _ in range(2):
            again = web.get(LOOK, headers={**JSON, "If-None-Match": known})
            assert (again.status_code, again.headers["ETag"], again.headers["Vary"]) == (status, first.headers["ETag"], "Accept")
            forget_answers()
    assert web.head(LOOK, headers=JSON).headers["ETag"] == first.headers["ETag"]


def test_what_is_no_longer_fresh_is_asked_for_anew(web: FlaskClient, db: Db, inspector: Inspector) -> None:
    first = web.post(IMG)
    inspector.finish()
    assert web.post(IMG).status_code == 200
    age(db)
    known = web.get(first.headers["Location"])  # who wants what was found then gets it
    assert (known.status_code, known.headers["Cache-Control"]) == (200, "private, no-cache")
    assert web.post(IMG).status_code == 202
    inspector.finish(sha256="b" * 64)
    assert web.post(IMG).get_json()["sha256"] == "b" * 64


def test_what_made_room_for_others_is_made_again(web: FlaskClient, db: Db, inspector: Inspector) -> None:
    location = web.post(IMG).headers["Location"]
    inspector.finish()
    db.inspection_results.update_many({}, {"$set": {"going": True}})
    gone = web.get(location)
    assert (gone.status_code, code(gone)) == (404, "not_found")
    assert web.post(IMG).status_code == 202
    db.inspection_results.delete_many({})
    inspector.finish()
    assert web.post(IMG).status_code == 200


def test_a_failure_is_repeated_for_a_while_and_then_tried_again(web: FlaskClient, db: Db, inspector: Inspector) -> None:
    location = web.post(IMG).headers["Location"]
    inspector.fail(UpstreamStatus("The source answers with status 404.", extra={"upstream_status": 404}))
    for answer in (web.post(IMG), web.post(IMG), web.get(location)):
        body = answer.get_json(force=True)
        assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")
        assert (body["code"], body["title"], body["detail"], body["upstream_status"]) == (
            "upstream_status", "Source answers otherwise", "The source answers with status 404.", 404,
        )  # fmt: skip
        assert 200 < int(answer.headers["Retry-After"]) <= 300
    age(db)
    assert web.get(location).headers["Retry-After"] == "1"
    assert web.post(IMG).status_code == 202
    inspector.finish()
    assert web.post(IMG).status_code == 200


def test_an_unknown_inspection_is_not_found(web: FlaskClient) -> None:
    for path in ("/inspections/x", f"/inspections/{'0' * 32}", f"/inspections/{'0' * 32}?wait=5"):
        answer = web.get(path)
        assert (answer.status_code, code(answer)) == (404, "not_found")
        assert "There is nothing here" in web.get(path, headers=BROWSER).text
    assert web.get(f"/inspections/{'0' * 32}?format=xml").status_code == 422


# ---------------------------------------------------------------- who may ask, and how often


def test_what_is_known_is_given_while_redis_is_away_and_nothing_new_is_begun(
    web: FlaskClient, db: Db, mongo: settings.Mongo, blobs_root: Path, inspector: Inspector
) -> None:
    web.post(IMG)
    inspector.finish()
    alone = client(mongo, blobs_root, inspect=IMPATIENT)  # Redis is nowhere
    assert alone.post(IMG).status_code == 200
    fresh = alone.post("/img?https://example.org/other.jpg")
    assert (fresh.status_code, code(fresh)) == (503, "redis_unavailable")
    assert int(fresh.headers["Retry-After"]) >= 1
    assert "Nothing new can be looked at" in alone.get("/?url=https://example.org/other.jpg").text
    assert db.inspections.count_documents({}) == 1


def test_what_is_known_is_given_while_redis_is_away_however_old(db: Db, web: FlaskClient, mongo: settings.Mongo, blobs_root: Path, inspector: Inspector) -> None:
    web.post(IMG)
    inspector.finish()
    web.get(LOOK)
    inspector.finish()
    age(db)
    alone = client(mongo, blobs_root, inspect=IMPATIENT)  # Redis is nowhere
    assert alone.post(IMG).status_code == 200
    shown = alone.get(LOOK, headers={"Accept": "application/json"})
    assert (shown.status_code, shown.headers["Cache-Control"]) == (200, "private, no-cache")


def test_dreams_are_counted_by_themselves(mongo: settings.Mongo, db: Db, blobs_root: Path, redis_url: str) -> None:
    web = client(mongo, blobs_root, redis_url, inspect=IMPATIENT.model_copy(update={"dreams_per_minute": 1}))
    here = {"REMOTE_ADDR": "198.51.100.17"}
    dreams = [web.post(f"/img?url=https://example.org/{name}.jpg&effect=deepdream", environ_overrides=here).status_code for name in "ab"]
    assert dreams == [202, 429]
    assert web.post("/img?https://example.org/c.jpg", environ_overrides=here).status_code == 202


def test_one_client_has_only_so_many_that_are_not_done_and_no_bytes_of_more_are_kept(
    db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str, inspector: Inspector
) -> None:
    web = client(mongo, blobs_root, redis_url, inspect=IMPATIENT.model_copy(update={"max_pending": 2}))
    here = {"REMOTE_ADDR": "198.51.100.27"}

    def hand_over(number: int) -> TestResponse:
        return web.post("/img", data=picture(number), content_type="image/jpeg", environ_overrides=here)

    assert [hand_over(number).status_code for number in range(4)] == [202, 202, 429, 429]
    assert len(list(LocalBlobs(blobs_root).list(INCOMING))) == 2
    assert web.post("/img?https://example.org/a.jpg", environ_overrides={"REMOTE_ADDR": "198.51.100.28"}).status_code == 202
    for job in jobs.claim(db, "inspector", 9, 30):
        assert jobs.fail(db, "inspector", job, BadPicture("It is broken."), failed_s=300, keep_s=1000)
    assert hand_over(2).status_code == 202


def test_a_picture_in_a_foreign_page_makes_us_fetch_nothing_wherever_we_are(web: FlaskClient, db: Db) -> None:
    for told in ({"Sec-Fetch-Site": "cross-site"}, {"Referer": "http://elsewhere.example/page"}):
        answer = web.get(LOOK, headers={"Accept": "application/json", **told})
        assert (answer.status_code, code(answer)) == (403, "foreign_origin")
    assert db.inspections.count_documents({}) == 0
    assert web.get(LOOK, headers={"Accept": "application/json", "Referer": "http://localhost/"}).status_code == 202


def test_a_post_is_never_answered_with_a_page(web: FlaskClient) -> None:
    answer = web.post("/img?ftp://example.org/a.jpg", headers=BROWSER)
    assert (answer.status_code, answer.mimetype, code(answer)) == (422, "application/problem+json", "bad_url")


def test_a_condition_that_is_not_understood_here_changes_nothing(web: FlaskClient, inspector: Inspector) -> None:
    web.get(LOOK)
    inspector.finish()
    shown = web.get(LOOK, headers={"Accept": "application/json"})
    tag = shown.headers["ETag"]
    for sent, status in (({"If-None-Match": tag}, 304), ({"If-None-Match": f'"x", W/{tag}'}, 304), ({"If-None-Match": "*"}, 304), ({"If-None-Match": '"x"', "If-Match": '"y"'}, 200)):
        assert web.get(LOOK, headers={"Accept": "application/json", **sent}).status_code == status


def test_one_client_begins_so_many_and_joins_as_it_likes(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> None:
    web = client(mongo, blobs_root, redis_url, inspect=IMPATIENT.model_copy(update={"per_minute": 2}))
    here = {"REMOTE_ADDR": "198.51.100.7"}
    asked = [web.post(f"/img?https://example.org/{name}.jpg", environ_overrides=here) for name in ("a", "a", "a", "b", "b", "c")]
    assert [answer.status_code for answer in asked] == [202, 202, 202, 202, 202, 429]
    assert (code(asked[-1]), int(asked[-1].headers["Retry-After"]) >= 1) == ("too_many_requests", True)
    assert "Too busy" in web.get("/?url=https://example.org/d.jpg", environ_overrides=here).text
    assert web.post("/img?https://example.org/c.jpg", environ_overrides={"REMOTE_ADDR": "198.51.100.8"}).status_code == 202


def test_no_more_wait_than_may(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> None:
    web = client(mongo, blobs_root, redis_url, inspect=IMPATIENT.model_copy(update={"max_waiting": 1}))
    assert web.post(IMG).status_code == 202
    assert web.post(IMG).status_code == 202

    others = (f"/img?https://example.org/{number}.jpg" for number in itertools.count())
    until(lambda: web.post(next(others)).status_code == 429, 20, "others are refused")  # they are counted twice a second
    assert code(web.post(next(others))) == "too_many_requests"
    assert web.post(IMG).status_code == 202


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}])
def test_a_foreign_page_cannot_make_us_fetch(web: FlaskClient, db: Db, headers: dict[str, str]) -> None:
    for answer in (web.get(LOOK, headers={**JSON, **headers}), web.head(LOOK, headers=headers), web.post(IMG, headers=headers)):
        assert answer.status_code == 403
    assert code(web.get(LOOK, headers={**JSON, **headers})) == "foreign_origin"
    page = web.get(LOOK, headers={**BROWSER, **headers})
    assert page.status_code == 403
    assert f'value="{URL}"' in page.text  # who meant it presses the button
    assert db.inspections.count_documents({}) == 0
    assert web.get("/", headers=headers).status_code == 200
    for ours in ("same-origin", "none"):
        assert web.get(LOOK, headers={"Sec-Fetch-Site": ours}).status_code == 202


# ---------------------------------------------------------------- a picture of one's own


def test_a_picture_that_is_sent_waits_for_the_inspector_and_is_described(web: FlaskClient, blobs_root: Path, inspector: Inspector) -> None:
    data = picture(7)
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
    data = picture(7)
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
    large = picture(1) + bytes(100_000)
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
        (IMG, {"data": picture(), "content_type": "image/jpeg"}, 422, "invalid", ["/url"]),
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
    two = [(io.BytesIO(picture(1)), "a.jpg"), (io.BytesIO(picture(2)), "b.jpg")]
    answer = web.post("/img", data={"file": two})
    assert (answer.status_code, pointers(answer)) == (422, ["/file"])


def test_an_address_is_taken_as_it_was_meant(web: FlaskClient, db: Db) -> None:
    url = "https://example.org/a.jpg?x=1&y=%20"
    asked = [f"/img?{quote(url, safe='')}", f"/img?{url}", f"/img?url={quote(url, safe='')}", f"/img?{url}&wait=0", f"/img?url={quote(url, safe='')}&wait=0"]
    assert {web.post(path).get_json()["source"] for path in asked} == {url}
    assert web.post("/img", json={"url": url}).get_json()["source"] == url
    assert db.inspections.count_documents({}) == 1


# ---------------------------------------------------------------- pictures and pages


def test_pictures_are_served_as_files_are(web: FlaskClient, db: Db, blobs_root: Path, inspector: Inspector) -> None:
    web.get(LOOK)
    result = inspector.finish()
    path = f"/pictures/{result}/rotate.jpg"
    whole = web.get(path)
    kept = results.use(db, result)
    assert kept is not None
    assert whole.data == LocalBlobs(blobs_root).read(made_key(kept["folder"], "rotate"))
    assert whole.headers["Cache-Control"] == "private, max-age=86400, immutable"
    assert (whole.mimetype, whole.headers["X-Content-Type-Options"]) == ("image/jpeg", "nosniff")
    part = web.get(path, headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.data) == (206, whole.data[2:6])
    assert web.get(path, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    for missing in (f"/pictures/{result}/deepdream.jpg", f"/pictures/{'0' * 32}/original.jpg", f"/pictures/{result}/thumb.jpg", "/pictures/x/original.jpg"):
        assert code(web.get(missing)) == "not_found"
    assert "look at the source again" in web.get(f"/pictures/{'0' * 32}/original.jpg").get_json(force=True)["detail"]


FAILURES: list[ShelfsightError] = [
    *(UrlRefused("Nothing is fetched from there.", code=said) for said in ("blocked_host", "blocked_address", "unresolvable_host")),
    UpstreamStatus("The source answers with status 404.", extra={"upstream_status": 404}),
    UpstreamTimeout("The source did not answer in full within the time limit."),
    UpstreamError("The source cannot be reached."),
    SourceTooLarge("The source is larger than 4,194,304 bytes.", extra={"limit": "max_source_bytes", "value": 4194304}),
    NotAnImage("What was sent is no picture."),
    *(BadPicture("It is broken.", code=said) for said in ("truncated", "corrupt", "too_many_pixels", "out_of_memory", "decoder_crash")),
    Busy("As much is being fetched as may be at once."),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: error.code)
def test_each_edge_has_its_page_and_its_problem(web: FlaskClient, inspector: Inspector, error: ShelfsightError) -> None:
    web.get(LOOK)
    inspector.fail(error)
    page, problem = web.get(LOOK, headers=BROWSER), web.get(LOOK, headers=JSON)
    assert (page.status_code, page.mimetype) == (error.status, "text/html")
    for shown in (EDGES[error.code].title, EDGES[error.code].advice, error.detail, f"{error.status} {error.code}", f'value="{URL}"'):
        assert shown in page.text.replace("&#39;", "'")
    assert (problem.status_code, problem.mimetype, code(problem)) == (error.status, "application/problem+json", error.code)
    assert problem.headers["Retry-After"] == page.headers["Retry-After"]


@pytest.mark.parametrize(("query", "said"), [("url=", "no_source"), ("url=%20", "no_source"), ("url=shelf", "bad_url"), (f"url={URL}&seed=x", "invalid")])
def test_what_was_never_asked_for_has_its_page_too(web: FlaskClient, db: Db, query: str, said: str) -> None:
    page = web.get(f"/?{query}")
    assert (page.status_code, page.mimetype) == (422, "text/html")
    assert EDGES[said].title in page.text
    assert code(web.get(f"/?{query}", headers=JSON)) == said
    assert db.inspections.count_documents({}) == 0


def test_who_waits_in_a_browser_has_a_page_that_loads_itself_again(web: FlaskClient, inspector: Inspector) -> None:
    waiting = web.get(LOOK, headers=BROWSER)
    assert (waiting.status_code, waiting.mimetype, waiting.headers["Retry-After"]) == (202, "text/html", "1")
    assert '<meta http-equiv="refresh"' in waiting.text
    assert "refresh" in web.get(waiting.headers["Location"], headers=BROWSER).text
    inspector.finish()
    assert "refresh" not in web.get(LOOK, headers=BROWSER).text


def test_the_start_page_has_the_form_and_nothing_of_a_picture(web: FlaskClient) -> None:
    assert 'name="url"' in web.get("/").text
    assert web.get("/?page=2").status_code == 200
    assert code(web.get("/?seed=1", headers=JSON)) == "invalid"


def test_a_url_is_shown_as_text_cut_and_linked_without_a_word_of_us(web: FlaskClient, inspector: Inspector) -> None:
    evil = "https://example.org/\"><script>alert('1')</script>?" + "x" * 500
    web.get(f"/?url={quote(evil, safe='')}")
    inspector.finish()
    page = web.get(f"/?url={quote(evil, safe='')}")
    assert page.status_code == 200
    assert "<script" not in page.text
    assert 'rel="noreferrer noopener nofollow"' in page.text
    shown = page.text.partition('nofollow">')[2].partition("</a>")[0]
    assert len(shown) < 250
    for url in ("javascript:alert(1)", "\"><script>alert('1')</script>"):
        wrong = web.get(f"/?url={quote(url, safe='')}")
        assert wrong.status_code == 422
        assert "<script" not in wrong.text
        assert 'href="javascript' not in wrong.text
