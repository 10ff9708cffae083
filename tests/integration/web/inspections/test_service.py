"""Inspections are requested, joined, waited for and returned."""

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
from tests.integration.web.inspections.inspection_requests import (
    AUGMENT,
    BROWSER,
    DESCRIBE,
    JSON,
    SHORT_WAIT,
    URL,
    code,
    pointers,
)
from tests.integration.web.inspections.scripted_inspector import Inspector
from tests.support.service_stack import wait_until
from tests.support.web_client import make_client, open_services
from web.inspections.response_schemas import AugmentedImage, ImageDescription, PendingInspection

pytestmark = pytest.mark.slow


def test_an_image_is_requested_waited_for_and_described(web: FlaskClient, inspector: Inspector) -> None:
    first = web.post(DESCRIBE)
    assert (first.status_code, first.headers["Retry-After"], first.headers["Cache-Control"]) == (202, "1", "no-store")
    pending = PendingInspection.model_validate(first.get_json())
    assert (pending.status, pending.source, pending.links["self"]) == ("queued", URL, first.headers["Location"])
    assert web.get(first.headers["Location"]).get_json()["status"] == "queued"
    result = inspector.finish()
    response = web.post(DESCRIBE)
    assert response.status_code == 200
    body = response.get_json()
    ImageDescription.model_validate(body)
    assert list(body) == [
        "source", "format", "mode", "width", "height", "bytes", "frames", "sha256", "exif", "icc", "phash", "brightness", "sharpness",
        "dominant_colors", "detections", "model", "barcodes", "url", "links",
    ]  # fmt: skip
    assert (body["source"], body["url"]) == (URL, f"http://localhost/pictures/{result}/original.jpg")
    assert "Cache-Control" not in response.headers
    later = web.get(body["links"]["self"])
    assert (later.get_json(), later.headers["ETag"]) == (body, response.headers["ETag"])


def test_a_dream_is_another_inspection_with_one_more_image(web: FlaskClient, inspector: Inspector) -> None:
    assert web.post(DESCRIBE).status_code == 202
    inspector.finish()
    path = f"/img?url={quote(URL)}&effect=deepdream&layer=2&strength=0.25"
    assert web.post(path).status_code == 202
    result = inspector.finish()
    effect = web.post(path).get_json()["effect"]
    assert effect == {"name": "deepdream", "layer": 2, "strength": 0.25, "url": f"http://localhost/pictures/{result}/deepdream.jpg"}
    assert web.get(effect["url"]).mimetype == "image/jpeg"
    assert web.post(f"{DESCRIBE}&effect=deepdream&strength=.25&layer=2").get_json()["effect"] == effect
    assert web.post("/img", json={"url": URL, "effect": "deepdream", "layer": 2, "strength": 0.25}).get_json()["effect"] == effect


def test_augmentations_are_returned_as_json_and_as_a_page(web: FlaskClient, inspector: Inspector) -> None:
    assert web.get(AUGMENT, headers=JSON).status_code == 202
    result = inspector.finish(broken="shear")
    response = web.get(AUGMENT, headers=JSON)
    body = response.get_json()
    AugmentedImage.model_validate(body)
    assert set(body) == {"source", "image", "augmentations", "seed", "links"}
    assert set(body["image"]) == {"format", "mode", "width", "height", "bytes", "frames", "sha256", "url"}
    assert [augmentation["name"] for augmentation in body["augmentations"]] == list(AUGMENTATIONS)
    by_name = {augmentation["name"]: augmentation for augmentation in body["augmentations"]}
    assert by_name["shear"] == {"name": "shear", "error": "augmentation_failed", "url": None}
    assert by_name["rotate"] == {"name": "rotate", "params": {"amount": 0.5}, "url": f"http://localhost/pictures/{result}/rotate.jpg"}
    for headers in ({}, {"Accept": "*/*"}, BROWSER):
        page = web.get(AUGMENT, headers=headers)
        assert (page.status_code, page.mimetype, page.headers["Vary"]) == (200, "text/html", "Accept")
        for name in AUGMENTATIONS:
            assert name.replace("_", " ") in page.text
            assert (f'src="/pictures/{result}/{name}.jpg"' in page.text) is (name != "shear")
        assert "<script" not in page.text
        assert page.headers["ETag"] != response.headers["ETag"]
    assert web.get(body["links"]["self"], headers=BROWSER).data == web.get(AUGMENT, headers=BROWSER).data
    assert web.get(f"{body['links']['self']}?format=json", headers=BROWSER).get_json() == body
    assert web.get(body["links"]["self"]).get_json() == body


def test_chosen_augmentations_and_a_seed_are_another_recipe(web: FlaskClient, inspector: Inspector) -> None:
    path = f"{AUGMENT}&augmentations=noise,rotate&seed=7"
    web.get(path)
    inspector.finish()
    body = web.get(path, headers=JSON).get_json()
    assert ([augmentation["name"] for augmentation in body["augmentations"]], body["seed"]) == (["noise", "rotate"], 7)
    for query, pointer in (("augmentations=noise,nope", "/augmentations"), ("seed=-1", "/seed"), ("page=2", "/page"), ("wait=x", "/wait")):
        wrong = web.get(f"{AUGMENT}&{query}", headers=JSON)
        assert (wrong.status_code, code(wrong), pointers(wrong)) == (422, "invalid", [pointer])


def test_waiting_requests_are_answered_when_the_inspection_is_done(web: FlaskClient, db: Db, inspector: Inspector) -> None:
    with ThreadPoolExecutor(3) as pool:
        other, third = (web.application.test_client() for _ in range(2))
        first = pool.submit(web.post, f"{DESCRIBE}&wait=30")
        wait_until(lambda: db.inspections.count_documents({}), 20, "the inspection")
        job_id = db.inspections.distinct("_id")[0]
        joined = pool.submit(other.post, f"{DESCRIBE}&wait=30")
        watched = pool.submit(third.get, f"/inspections/{job_id}?wait=30")
        time.sleep(0.2)
        began = time.monotonic()
        inspector.finish()
        assert [future.result().status_code for future in (first, joined, watched)] == [200, 200, 200]
        assert time.monotonic() - began < 20


def test_many_concurrent_requests_have_one_job_and_few_wakeups(web: FlaskClient, db: Db, redis_url: str, inspector: Inspector) -> None:
    wakeups: Any = redis.Redis.from_url(redis_url)
    wakeups.delete(INSPECTIONS.name)
    app, start = web.application, threading.Barrier(50)

    def request_once(number: int) -> int:
        start.wait(30)
        return app.test_client().post(f"{DESCRIBE}&wait=0", environ_overrides={"REMOTE_ADDR": f"192.0.2.{number}"}).status_code

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(request_once, range(50))) == {202}
    assert db.inspections.count_documents({}) == 1
    assert wakeups.llen(INSPECTIONS.name) == 1
    wakeups.close()
    inspector.finish()
    assert web.post(DESCRIBE).status_code == 200


def test_the_number_of_waiting_threads_is_limited_and_the_others_return_at_once(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> None:
    web = make_client(mongo, blobs_root, redis_url, threads=8, inspect=SHORT_WAIT)
    held = [open_services[-1].wait_slots.acquire(blocking=False) for _ in range(3)]
    assert held == [True, True, False]  # a quarter of the threads
    began = time.monotonic()
    first = web.post(f"{DESCRIBE}&wait=30")
    assert first.status_code == 202
    assert web.get(f"{first.headers['Location']}?wait=30").status_code == 202
    assert time.monotonic() - began < 20
    open_services[-1].wait_slots.release()
    assert web.post(f"{DESCRIBE}&wait=0").status_code == 202
    assert open_services[-1].wait_slots.acquire(blocking=False)  # the thread that waited has released its slot
