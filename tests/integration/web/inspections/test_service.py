"""Asked for once, waited for, answered."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from flask.testing import FlaskClient

from shared import settings
from shared.augmentations import AUGMENTATIONS
from shared.queues import INSPECTIONS
from shared.storage.mongo import Db
from tests.integration.web.inspections.asking import BROWSER, IMG, IMPATIENT, JSON, LOOK, URL, code, pointers
from tests.integration.web.inspections.scripted_inspector import Inspector
from tests.support.service_stack import wait_until
from tests.support.web_client import make_client, open_services
from web.batches.response_schemas import Awaited, Description, Look

pytestmark = pytest.mark.slow


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
        wait_until(lambda: db.inspections.count_documents({}), 20, "the inspection")
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
    bells.delete(INSPECTIONS.name)
    app, start = web.application, threading.Barrier(50)

    def ask(number: int) -> int:
        start.wait(30)
        return app.test_client().post(f"{IMG}&wait=0", environ_overrides={"REMOTE_ADDR": f"192.0.2.{number}"}).status_code

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(ask, range(50))) == {202}
    assert db.inspections.count_documents({}) == 1
    assert bells.llen(INSPECTIONS.name) == 1
    bells.close()
    inspector.finish()
    assert web.post(IMG).status_code == 200


def test_as_many_wait_as_may_and_the_others_are_told_at_once(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> None:
    web = make_client(mongo, blobs_root, redis_url, threads=8, inspect=IMPATIENT)
    held = [open_services[-1].waiters.acquire(blocking=False) for _ in range(3)]
    assert held == [True, True, False]  # a quarter of the threads
    began = time.monotonic()
    first = web.post(f"{IMG}&wait=30")
    assert first.status_code == 202
    assert web.get(f"{first.headers['Location']}?wait=30").status_code == 202
    assert time.monotonic() - began < 20
    open_services[-1].waiters.release()
    assert web.post(f"{IMG}&wait=0").status_code == 202
    assert open_services[-1].waiters.acquire(blocking=False)  # who waited made room again
