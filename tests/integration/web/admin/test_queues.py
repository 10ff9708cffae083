"""GET /admin/queues, and how administrators pause and resume queues."""

import io
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared import settings
from shared.inspections import jobs as inspections
from shared.inspections.recipes import Describe, Source
from shared.ledger import claims
from shared.queue import heartbeats, pauses
from shared.queues import IMAGES, INSPECTIONS, JOBS, QUEUES, WorkQueue
from shared.storage.mongo import Db
from tests.integration.shared.jobs.requesting import request_job
from tests.support.accounts import ACCESS, bearer, make_key, make_token, make_user
from tests.support.ledger import commit_new_batch
from tests.support.service_stack import wait_until
from tests.support.web_client import image_payload, make_client, make_image, open_services, post_batch
from web.admin import measurements

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _measure_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "MAX_AGE_S", 0.0)


def label(queue: WorkQueue) -> str:
    return queue.label


def read(web: FlaskClient, name: str) -> dict[str, Any]:
    """Return one of the queues that the service lists."""
    response = web.get("/admin/queues")
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.get_json()["queues"]
    assert [queue["name"] for queue in found] == ["images", "inspections", "jobs"]
    schema = web.get("/openapi.json").get_json()["components"]["schemas"]["Queue"]
    assert all(set(queue) == set(schema["properties"]) == set(schema["required"]) for queue in found)
    return next(queue for queue in found if queue["name"] == name)


def test_an_idle_queue_has_nothing_to_wait_for(web: FlaskClient) -> None:
    assert read(web, "images") == {
        "name": "images", "paused": False, "paused_by": None, "paused_at": None, "waiting": 0, "running": 0, "oldest_age_s": 0,
        "rate_per_minute": None, "eta_s": 0, "workers": 0, "by_store": [], "stores_more": False,
    }  # fmt: skip


def test_the_time_until_images_are_processed_follows_from_what_the_workers_have_finished(web: FlaskClient, db: Db) -> None:
    commit_new_batch(db, 4, "south")
    claims.claim(db, "one", 4, 60)
    commit_new_batch(db, 8, "north")
    assert read(web, "images")["eta_s"] is None  # no worker
    heartbeats.send_heartbeat(db, "one", IMAGES, finished=(0, 120.0), busy=(0, 2.0))
    assert read(web, "images")["eta_s"] is None  # it has finished nothing
    heartbeats.send_heartbeat(db, "one", IMAGES, finished=(8, 120.0), busy=(8, 16.0))
    heartbeats.send_heartbeat(db, "two", IMAGES, finished=(4, 60.0), busy=(4, 8.0))
    heartbeats.send_heartbeat(db, "inspector", INSPECTIONS, finished=(100, 60.0), busy=(100, 60.0))
    heartbeats.send_heartbeat(db, "three", IMAGES, "blobs_unavailable", finished=(0, 60.0), busy=(100, 60.0))
    queue = read(web, "images")
    assert (queue["waiting"], queue["running"], queue["workers"]) == (8, 4, 2)
    assert (queue["rate_per_minute"], queue["eta_s"]) == (8.0, 12)  # a minute of which the workers are busy for 8 s
    assert [(store["store_name"], store["waiting"]) for store in queue["by_store"]] == [("north", 8)]
    pauses.pause(db, IMAGES, None)
    assert read(web, "images")["eta_s"] is None


def test_inspections_and_jobs_are_counted(web: FlaskClient, db: Db) -> None:
    for name in ("a", "b"):
        inspections.request(db, Source(url=f"https://example.org/{name}.jpg"), Describe(), "client", keep_s=100)
    inspections.claim(db, "inspector", 1, 60)
    db.inspections.update_one({"status": "queued"}, [{"$set": {"asked_at": {"$subtract": ["$$NOW", 40_000]}}}])
    request_job(db)
    queue = read(web, "inspections")
    assert (queue["waiting"], queue["running"], queue["by_store"]) == (1, 1, [])
    assert 40 <= queue["oldest_age_s"] < 100
    assert (read(web, "jobs")["waiting"], read(web, "jobs")["running"]) == (1, 0)


@pytest.mark.parametrize("queue", QUEUES, ids=label)
def test_a_queue_is_paused_and_resumed(web: FlaskClient, db: Db, queue: WorkQueue) -> None:
    for _ in range(2):
        response = web.post(f"/admin/queues/{queue.label}/pause")
        assert response.status_code == 200, response.text
        assert (response.get_json()["name"], response.get_json()["paused"]) == (queue.label, True)
    assert response.get_json() == read(web, queue.label)
    assert pauses.is_paused(db, queue)
    for _ in range(2):
        response = web.post(f"/admin/queues/{queue.label}/resume", json={})
        assert (response.status_code, response.get_json()["paused"], response.get_json()["paused_at"]) == (200, False, None)
    assert not pauses.is_paused(db, queue)


def test_who_pauses_and_resumes_is_shown_and_recorded_once(closed_web: FlaskClient, db: Db) -> None:
    anna, ben = (bearer(make_token(db, make_user(db, name, "admin"))) for name in ("anna", "ben"))
    for headers in (anna, ben):
        paused = closed_web.post("/admin/queues/images/pause", headers=headers).get_json()
        assert paused["paused_by"] == "anna"
    for headers in (ben, anna):
        assert closed_web.post("/admin/queues/images/resume", headers=headers).get_json()["paused_by"] is None
    events = list(db.audit_events.find({"type": {"$in": ["queue.paused", "queue.resumed"]}}).sort("_id", 1))
    assert [(event["type"], event["username"], event["target"]) for event in events] == [
        ("queue.paused", "anna", "queue:images"),
        ("queue.resumed", "ben", "queue:images"),
    ]


def test_credentials_for_some_stores_can_neither_read_nor_change_queues(closed_web: FlaskClient, db: Db) -> None:
    headers = bearer(make_key(db, "admin", stores=["north"]))
    requests = [("GET", "/admin/queues"), ("GET", "/admin/workers"), ("POST", "/admin/queues/images/pause"), ("POST", "/admin/queues/images/resume")]
    for method, path in requests:
        response = closed_web.open(path, method=method, headers=headers)
        assert (response.status_code, response.get_json()["code"]) == (403, "all_stores_required")
    assert db.queues.count_documents({}) == 0


@pytest.mark.parametrize("name", ["unknown", "IMAGES", "shelfsight.bells", "%00", "images%20"])
def test_an_unknown_queue_is_not_found(web: FlaskClient, db: Db, name: str) -> None:
    for action in ("pause", "resume"):
        response = web.post(f"/admin/queues/{name}/{action}")
        assert (response.status_code, response.get_json()["code"]) == (404, "not_found")
    assert db.queues.count_documents({}) == 0


def test_requests_with_members_or_parameters_are_refused(web: FlaskClient, db: Db) -> None:
    for response in (web.post("/admin/queues/images/pause", json={"for_s": 5}), web.post("/admin/queues/images/pause?for_s=5"), web.get("/admin/queues?a=b")):
        assert (response.status_code, response.get_json()["code"]) == (422, "invalid")
    assert not pauses.is_paused(db, IMAGES)


def test_uploads_are_accepted_while_the_images_are_paused(web: FlaskClient, db: Db) -> None:
    web.post("/admin/queues/images/pause")
    assert post_batch(web, [image_payload()]).status_code == 202
    assert read(web, "images")["waiting"] == 1


def test_resuming_wakes_a_worker_up(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> None:
    web = make_client(mongo, blobs_root, redis_url)
    wakeups = open_services[-1].wakeups[JOBS]
    wakeups._redis.delete(JOBS.name)
    web.post("/admin/queues/jobs/pause")
    assert wakeups.count_waiting() == 0
    web.post("/admin/queues/jobs/resume")
    wait_until(lambda: wakeups.count_waiting() == 1, 60)
    wakeups._redis.delete(JOBS.name)


def test_a_new_inspection_is_refused_while_inspections_are_paused_and_a_queued_one_is_not_waited_for(
    db: Db, mongo: settings.Mongo, blobs_root: Path
) -> None:
    web = make_client(mongo, blobs_root, inspect=settings.Inspect(wait_s=30))
    first = web.post("/img?wait=0", data={"file": (io.BytesIO(make_image(1)), "a.jpg")})
    assert first.status_code == 202
    web.post("/admin/queues/inspections/pause")
    refused = web.post("/img", data={"file": (io.BytesIO(make_image(2)), "b.jpg")})
    assert (refused.status_code, refused.get_json()["code"], refused.headers["Retry-After"]) == (503, "queue_paused", "60")
    assert db.inspections.count_documents({}) == 1
    page = web.get("/?url=https://example.org/a.jpg", headers={"Accept": "text/html"})
    assert (page.status_code, page.mimetype) == (503, "text/html")
    for response in (web.post("/img", data={"file": (io.BytesIO(make_image(1)), "a.jpg")}), web.get(f"{first.headers['Location']}?wait=30")):
        assert (response.status_code, response.get_json()["id"]) == (202, first.get_json()["id"])
    web.post("/admin/queues/inspections/resume")
    assert web.post("/img?wait=0", data={"file": (io.BytesIO(make_image(2)), "b.jpg")}).status_code == 202


def test_the_numbers_are_measured_once_for_many_requests(closed_web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = bearer(make_key(db))
    monkeypatch.setattr(closed_web.application.extensions["measured_queues"], "_max_age_s", 600)
    assert closed_web.get("/admin/queues", headers=headers).get_json()["queues"][0]["waiting"] == 0
    commit_new_batch(db, 2)
    pauses.pause(db, IMAGES, "key:1")
    queue = closed_web.get("/admin/queues", headers=headers).get_json()["queues"][0]
    assert (queue["waiting"], queue["paused"], queue["paused_by"]) == (0, True, "key:1")


def test_a_reader_without_the_scope_is_refused(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    web = make_client(mongo, blobs_root, access=ACCESS)
    headers = bearer(make_key(db, "uploader"))
    assert web.get("/admin/queues", headers=headers).get_json()["code"] == "missing_scope"
