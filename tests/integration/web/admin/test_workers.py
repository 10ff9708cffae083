"""GET /admin/workers: which workers there are, and what they hold."""

from typing import Any
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient

from shared.inspections import jobs as inspections
from shared.inspections.recipes import Describe, Source
from shared.jobs import claims as job_claims
from shared.ledger import claims, results
from shared.queue import heartbeats
from shared.queues import IMAGES, INSPECTIONS, JOBS
from shared.storage.mongo import Db
from tests.integration.shared.jobs.requesting import request_job
from tests.support.ledger import commit_new_batch, successful_results, validate_documents

pytestmark = pytest.mark.slow
MODEL = {"name": "grocery", "version": "1", "weights_sha256": "a" * 64}


def read(web: FlaskClient, **parameters: Any) -> list[dict[str, Any]]:
    response = web.get(f"/admin/workers?{urlencode(parameters)}")
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.get_json()["workers"]
    return found


def test_each_worker_is_shown_with_what_it_holds(web: FlaskClient, db: Db) -> None:
    batch_id = commit_new_batch(db, 12)
    claim = claims.claim(db, "a", 12, 60)
    inspections.request(db, Source(url="https://example.org/a.jpg"), Describe(), "client", keep_s=100)
    (inspection,) = inspections.claim(db, "b", 1, 60)
    job = request_job(db)
    job_claims.claim(db, "c", 60)
    heartbeats.send_heartbeat(db, "a", IMAGES, model=MODEL, finished=(10, 60.0))
    heartbeats.send_heartbeat(db, "b", INSPECTIONS)
    heartbeats.send_heartbeat(db, "c", JOBS, finished=(1, 3.0))
    heartbeats.send_heartbeat(db, "d", IMAGES, "model_unusable")
    a, b, c, d = read(web)
    schema = web.get("/openapi.json").get_json()["components"]["schemas"]["Worker"]
    assert set(a) == set(schema["properties"]) == set(schema["required"])
    assert (a["id"], a["queue"], a["alive"], a["impediment"], a["model"], a["finished_per_minute"]) == ("a", "images", True, None, MODEL, 10.0)
    assert a["started_at"]
    assert a["last_seen"]
    doing = a["doing"]
    assert (doing["images"], doing["inspections"], doing["jobs"], len(doing["ids"])) == (12, 0, 0, 10)
    assert all(image_id.startswith(batch_id) for image_id in doing["ids"])
    assert doing["since"] is not None
    assert (b["queue"], b["doing"]["inspections"], b["doing"]["ids"]) == ("inspections", 1, [inspection.id])
    assert (c["queue"], c["doing"]["jobs"], c["doing"]["ids"], c["finished_per_minute"]) == ("jobs", 1, [job["_id"]], None)
    assert b["doing"]["since"]
    assert c["doing"]["since"]
    assert (d["impediment"], d["doing"], d["model"]) == ("model_unusable", None, None)
    validate_documents(db)
    results.finish(db, "a", successful_results(claim))
    assert read(web)[0]["doing"] is None


def test_a_dead_worker_is_listed_and_has_no_rate(web: FlaskClient, db: Db) -> None:
    heartbeats.send_heartbeat(db, "dead", IMAGES, model=MODEL, finished=(10, 60.0))
    db.workers.update_one({"_id": "dead"}, [{"$set": {"seen": {"$subtract": ["$$NOW", 100_000]}}}])
    (worker,) = read(web)
    assert (worker["alive"], worker["finished_per_minute"], worker["model"]) == (False, None, MODEL)


def test_a_worker_of_the_version_before_is_shown_without_what_it_does_not_tell(web: FlaskClient, db: Db) -> None:
    db.workers.update_one({"_id": "old"}, [{"$set": {"seen": "$$NOW", "pid": 7, "host": "h", "door": IMAGES.name, "hindrance": None}}], upsert=True)
    db.workers.update_one({"_id": "unknown"}, [{"$set": {"seen": "$$NOW", "pid": 8, "host": "h", "door": "other", "hindrance": None}}], upsert=True)
    old, unknown = read(web)
    assert (old["queue"], old["host"], old["pid"], old["alive"]) == ("images", "h", 7, True)
    assert old["started_at"] is old["model"] is old["finished_per_minute"] is old["doing"] is None
    assert unknown["queue"] is None


def test_pages_follow_each_other(web: FlaskClient, db: Db) -> None:
    names = [f"host:{number}:a b/ü" for number in range(5)]
    for name in names:
        heartbeats.send_heartbeat(db, name, IMAGES)
    found: list[str] = []
    parameters: dict[str, Any] = {"per_page": 2}
    for expected in (2, 2, 1):
        page = web.get(f"/admin/workers?{urlencode(parameters)}").get_json()
        assert len(page["workers"]) == expected
        found += [worker["id"] for worker in page["workers"]]
        parameters["cursor"] = page["next_cursor"]
    assert (found, parameters["cursor"]) == (names, None)


@pytest.mark.parametrize("query", ["per_page=0", "per_page=101", "cursor=", f"cursor={'x' * 201}", "page=2"])
def test_invalid_parameters_are_refused(web: FlaskClient, query: str) -> None:
    assert web.get(f"/admin/workers?{query}").status_code == 422
