"""``POST /reprocess``: images that filters name are processed again in a job."""

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared import settings
from shared.jobs.records import MAX_UNFINISHED
from shared.queue import heartbeats
from shared.queues import IMAGES
from shared.storage.mongo import Db
from tests.integration.worker.jobs.reprocessing import make_done, process, times_queued
from tests.integration.worker.jobs.tagging import (
    make_images,
    make_worker,
    read_job,
    run,
)
from tests.support.accounts import bearer, make_key, make_user
from tests.support.ledger import process_all

_MODEL = {"name": "m", "version": "1", "weights_sha256": "a" * 64}


def post(web: FlaskClient, body: Any, status: int = 202, headers: dict[str, str] | None = None) -> Any:
    answer = web.post("/reprocess", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    if status == 202:
        assert answer.headers["Location"] == f"/jobs/{answer.get_json()['job_id']}"
    return answer.get_json()


def do_jobs(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    worker = make_worker(db, mongo, blobs_root)
    run(worker)
    worker.stop()


def test_images_are_processed_again_with_the_options_of_the_request(web: FlaskClient, db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    wanted, _ = make_done(db, 4, camera_id="7"), make_done(db, 3)
    heartbeats.send_heartbeat(db, "w", IMAGES, model=_MODEL)
    body = {"filters": {"camera_id": 7}, "augmentations": ["grayscale", "grayscale"], "detect": False, "model": "m"}
    job_id = post(web, body)["job_id"]
    shown = web.get(f"/jobs/{job_id}").get_json()
    assert (shown["kind"], shown["status"], shown["undo_until"]) == ("reprocess", "queued", None)
    do_jobs(db, mongo, blobs_root)
    shown = web.get(f"/jobs/{job_id}").get_json()
    assert (shown["status"], shown["total"], shown["done"], shown["changed"], shown["errors"]) == ("done", 4, 4, 4, [])
    assert times_queued(db) == dict.fromkeys(wanted, 1)
    for image in db.images.find({"status": "queued"}):
        assert (image["work"]["augmentations"], image["work"]["detect"], image["work"]["priority"]) == (["grayscale"], False, "low")
    process_all(db)
    assert web.get("/images?camera_id=7").get_json()["images"][0]["status"] == "done"
    (event,) = db.audit_events.find({"type": "images.reprocessed"})
    assert (event["target"], event["details"]) == (f"job:{job_id}", {"only": "all", "filters": ["camera_id=7"]})
    assert web.post(f"/jobs/{job_id}/undo").get_json()["code"] == "not_undoable"


def test_stale_keeps_the_model_that_is_active_at_the_request(web: FlaskClient, db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    make_images(db, 2, camera_id="7")
    process(db, model=_MODEL | {"weights_sha256": "b" * 64})
    body = {"filters": {"camera_id": "7"}, "only": "stale"}
    assert post(web, body, 503)["code"] == "model_unknown"
    heartbeats.send_heartbeat(db, "w", IMAGES, model=_MODEL)
    job_id = post(web, body)["job_id"]
    assert db.jobs.find_one({"_id": job_id})["params"]["weights_sha256"] == "a" * 64  # type: ignore[index]
    do_jobs(db, mongo, blobs_root)
    assert read_job(db, job_id)["changed"] == 2


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/filters", "missing"),
        ({"filters": {}}, "/filters", "empty"),
        ({"filters": []}, "/filters", "wrong_type"),
        ({"filters": {"nonsense": 1}}, "/filters/nonsense", "unknown_field"),
        ({"filters": {"status": "broken"}}, "/filters/status", "bad_value"),
        ({"filters": {"status": "done"}, "only": "some"}, "/only", "bad_value"),
        ({"filters": {"status": "done"}, "only": None}, "/only", "bad_value"),
        ({"filters": {"status": "done"}, "ids": []}, "/ids", "unknown_field"),
        ({"filters": {"status": "done"}, "augmentations": ["rotate", "x"]}, "/augmentations/1", "unknown_augmentation"),
        ({"filters": {"status": "done"}, "model": "other"}, "/model", "unknown_model"),
        ({"filters": {"status": "done"}, "detect": 1}, "/detect", "wrong_type"),
        ({"filters": {"held": True}}, "/filters/held", "not_supported"),
    ],
    ids=["nothing", "empty", "type", "unknown", "value", "only", "only-null", "ids", "augmentation", "model", "detect", "held"],
)
def test_an_invalid_request_makes_no_job(web: FlaskClient, db: Db, body: Any, pointer: str, code: str) -> None:
    heartbeats.send_heartbeat(db, "w", IMAGES, model=_MODEL)
    assert [(error["pointer"], error["code"]) for error in post(web, body, 422)["errors"]] == [(pointer, code)]
    assert db.jobs.count_documents({}) == 0
    assert db.audit_events.count_documents({}) == 0


def test_an_account_has_a_limited_number_of_unfinished_jobs(web: FlaskClient, db: Db) -> None:
    make_images(db, 1)
    for _ in range(MAX_UNFINISHED):
        post(web, {"filters": {"status": "done"}})
    assert post(web, {"filters": {"status": "done"}}, 409)["code"] == "too_many_jobs"


def test_the_job_is_about_the_stores_of_the_requester(closed_web: FlaskClient, db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    north, _ = make_done(db, 2), make_done(db, 2, "south")
    post(closed_web, {"filters": {"status": "done"}}, headers=bearer(make_key(db, "uploader", ["north"])))
    do_jobs(db, mongo, blobs_root)
    assert set(times_queued(db)) == set(north)


def test_a_job_is_cancelled_with_the_scope_of_its_kind_alone(closed_web: FlaskClient, db: Db) -> None:
    anna = make_user(db, "anna", "admin")
    writer, tagger, viewer = (bearer(make_key(db, None, scopes=scopes, user=anna)) for scopes in (["images:write"], ["tags:write"], ["images:read"]))  # type: ignore[arg-type]
    job_id = post(closed_web, {"filters": {"status": "done"}}, headers=writer)["job_id"]
    for headers, scope in ((tagger, "images:write"), (viewer, "tags:write")):
        refused = closed_web.post(f"/jobs/{job_id}/cancel", headers=headers)
        assert (refused.status_code, refused.get_json()["code"], refused.get_json()["scope"]) == (403, "missing_scope", scope)
        assert refused.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{scope}"'
    assert closed_web.post(f"/jobs/{job_id}/cancel", headers=writer).get_json()["status"] == "cancelled"
