"""Readiness and metrics, as monitoring reads them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from pymongo.collection import Collection
from pymongo.errors import ExecutionTimeout

from shared import settings
from shared.errors import DiskFull, StoreAway
from shared.ledger import audit, sums
from shared.queue import heartbeats, pauses
from shared.queues import IMAGES, INSPECTIONS
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.shared.jobs.requesting import request_job
from tests.support.web_client import image_payload, make_client, make_image, open_services, post_batch

pytestmark = pytest.mark.slow


def test_a_document_removed_by_hand_shows_in_the_metrics(web: FlaskClient, db: Db) -> None:
    accepted = post_batch(web, [image_payload(), image_payload()]).get_json()
    db.images.delete_one({"_id": accepted["images"][0]["id"]})
    sums.refresh(db, 0)
    metrics = web.get("/metrics").get_data(as_text=True)
    assert 'state="received"} 2.0' in metrics
    assert 'state="pending"} 1.0' in metrics
    assert "shelfsight_ledger_missing_images 1.0" in metrics
    assert "shelfsight_ledger_unbalanced_batches 1.0" in metrics


def test_the_metrics_have_the_paused_queues_and_the_workers_that_can_work(web: FlaskClient, db: Db) -> None:
    pauses.pause(db, INSPECTIONS, None)
    heartbeats.send_heartbeat(db, "a worker", IMAGES)
    heartbeats.send_heartbeat(db, "another", IMAGES, "model_unusable")
    lines = web.get("/metrics").get_data(as_text=True).splitlines()
    found = {line for line in lines if line.startswith(("shelfsight_queue_paused{", "shelfsight_workers{"))}
    assert found == {
        'shelfsight_queue_paused{queue="images"} 0.0', 'shelfsight_queue_paused{queue="inspections"} 1.0', 'shelfsight_queue_paused{queue="jobs"} 0.0',
        'shelfsight_workers{queue="images"} 1.0', 'shelfsight_workers{queue="inspections"} 0.0', 'shelfsight_workers{queue="jobs"} 0.0',
    }  # fmt: skip


def test_a_paused_queue_does_not_make_the_service_unready(web: FlaskClient, db: Db) -> None:
    heartbeats.send_heartbeat(db, "a worker", IMAGES)
    pauses.pause(db, IMAGES, None)
    checks = web.get("/readyz").get_json()["checks"]
    assert [name for name, check in checks.items() if not check["ok"]] == ["redis"]


def test_until_the_sweep_has_counted_the_metrics_lack_the_ledger_and_nothing_else(web: FlaskClient, db: Db) -> None:
    post_batch(web, [image_payload()])
    response = web.get("/metrics")
    names = {line.split()[0].partition("{")[0] for line in response.get_data(as_text=True).splitlines() if not line.startswith("#")}
    backlog = {f"shelfsight_backlog_{name}" for name in ("images", "oldest_seconds", "age_seconds")}
    assert response.status_code == 200
    originals = {"shelfsight_originals_checked_total", "shelfsight_originals_damaged_total"}
    assert names == backlog | originals | {
        "shelfsight_inspections", "shelfsight_jobs", "shelfsight_jobs_oldest_queued_seconds", "shelfsight_queue_paused", "shelfsight_workers",
    }  # fmt: skip
    sums.refresh(db, 0)
    names = {line.split()[0] for line in web.get("/metrics").get_data(as_text=True).splitlines()}
    assert {"shelfsight_ledger_missing_images", "shelfsight_ledger_unbalanced_batches", "shelfsight_ledger_age_seconds", "shelfsight_ledger_oldest_recount_seconds"} <= names


def test_the_metrics_have_the_jobs_that_have_not_ended(web: FlaskClient, db: Db) -> None:
    request_job(db)
    metrics = web.get("/metrics").get_data(as_text=True)
    assert 'shelfsight_jobs{state="queued"} 1.0' in metrics
    assert 'shelfsight_jobs{state="running"} 0.0' in metrics
    assert "shelfsight_jobs_oldest_queued_seconds" in metrics


def test_concurrent_and_repeated_readiness_checks_share_their_writes(web: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can send these requests, and each check writes to the database and to the disk."""
    written: list[str] = []
    write = LocalBlobs.write

    def record_write(self: LocalBlobs, key: str, parts: Any) -> None:
        written.append(key)
        write(self, key, parts)

    monkeypatch.setattr(LocalBlobs, "write", record_write)
    monkeypatch.setattr(web.application.extensions["readiness"], "_max_age_s", 600)
    monkeypatch.setattr("web.cached_value._BRIEF_S", 600)
    with ThreadPoolExecutor(8) as threads:
        statuses = {response.status_code for response in threads.map(lambda _: web.application.test_client().get("/readyz"), range(40))}
    assert statuses == {503}
    assert written.count("ready/web") == 1


def test_an_accepted_batch_needs_disk_space_before_the_backlog_is_measured_again(
    mongo: settings.Mongo, db: Db, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = make_client(mongo, blobs_root, min_free_bytes=1)
    services = open_services[-1]
    monkeypatch.setattr(services.backlog._measured, "_min_pause_s", 600)
    first = [image_payload(make_image(1, (400, 300)))]
    accepted = post_batch(web, first)
    size = len(make_image(1, (400, 300)))
    assert accepted.status_code == 202
    assert services.backlog.unprocessed_bytes() == size
    assert services.backlog.get().bytes == 0  # measured before the upload
    growth = services.settings.blobs.growth
    monkeypatch.setattr(LocalBlobs, "free_bytes", lambda _: 1 + int(growth * size) - 1)
    with pytest.raises(DiskFull):
        services.check_free_space(0)


def test_the_last_backlog_remains_while_the_database_is_unavailable(web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    post_batch(web, [image_payload(), image_payload()])
    backlog = open_services[-1].backlog
    monkeypatch.setattr(backlog._measured, "_min_pause_s", 0.01)
    while backlog.get().images != 2:
        time.sleep(0.01)
    away = threading.Event()

    def fail(_db: Db) -> audit.Backlog:
        away.set()
        raise StoreAway("away")

    monkeypatch.setattr(audit, "backlog", fail)
    assert away.wait(60)
    assert backlog.get().images == 2
    assert "shelfsight_backlog_images 2.0" in web.get("/metrics").get_data(as_text=True)


def test_a_backlog_that_takes_too_long_to_measure_is_not_called_a_slow_query(web: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def exceed(*_: object, **__: object) -> None:
        raise ExecutionTimeout("operation exceeded time limit", 50)

    monkeypatch.setattr(Collection, "count_documents", exceed)
    for response in (post_batch(web, [image_payload()]), web.get("/metrics")):
        problem = response.get_json(force=True)
        assert (response.status_code, problem["code"]) == (503, "database_unavailable")
        assert "cursor" not in problem["detail"]
        assert response.headers["Retry-After"]


def test_readyz_reports_what_is_missing(web: FlaskClient) -> None:
    response = web.get("/readyz")
    checks = response.get_json()["checks"]
    assert response.status_code == 503
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.get_json()["code"] == "not_ready"
    assert {name: check["ok"] for name, check in checks.items()} == {
        "mongodb": True,
        "indexes": True,
        "redis": False,
        "blobs": True,
        "disk": True,
        "worker": False,
        "model": True,
        "draining": True,
    }
    assert web.get("/healthz").status_code == 200


def test_readyz_reports_that_no_worker_can_use_its_model_until_one_can(web: FlaskClient, db: Db) -> None:
    web.application.extensions["readiness"]._max_age_s = 0
    heartbeats.send_heartbeat(db, "one", IMAGES, "model_unusable")
    checks = web.get("/readyz").get_json()["checks"]
    assert {name for name, check in checks.items() if not check["ok"]} >= {"worker", "model"}
    assert "VISION_MODEL" in checks["model"]["detail"]
    heartbeats.send_heartbeat(db, "another", IMAGES)
    checks = web.get("/readyz").get_json()["checks"]
    assert checks["worker"]["ok"]
    assert checks["model"]["ok"]


def test_a_drained_server_is_not_ready_but_serves_requests(
    mongo: settings.Mongo, db: Db, blobs_root: Path, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain = tmp_path / "drain"
    monkeypatch.setenv("WEB_DRAIN_FILE", str(drain))
    web = make_client(mongo, blobs_root, redis_url)
    heartbeats.send_heartbeat(db, "a worker", IMAGES)
    assert web.get("/readyz").status_code == 200
    drain.touch()
    heartbeats.send_heartbeat(db, "a worker", IMAGES)
    response = web.get("/readyz")
    checks = response.get_json()["checks"]
    assert (response.status_code, response.get_json()["code"]) == (503, "not_ready")
    assert [name for name, check in checks.items() if not check["ok"]] == ["draining"]
    assert "drained" in checks["draining"]["detail"]
    assert str(drain) not in response.get_data(as_text=True)
    accepted = post_batch(web, [image_payload()])
    assert accepted.status_code == 202
    assert all(web.get(path).status_code == 200 for path in (accepted.headers["Location"], "/image_batches", "/healthz", "/"))
    drain.unlink()
    heartbeats.send_heartbeat(db, "a worker", IMAGES)
    assert web.get("/readyz").status_code == 200


def test_readyz_reports_nothing_else_when_only_the_database_is_unavailable(mongo: settings.Mongo, blobs_root: Path) -> None:
    nowhere = mongo.model_copy(update={"url": "mongodb://127.0.0.1:1/", "server_selection_timeout_s": 0.2})
    checks = make_client(nowhere, blobs_root).get("/readyz").get_json()["checks"]
    assert [name for name, check in checks.items() if check["ok"]] == ["blobs", "disk", "draining"]
    assert all("MongoDB is unavailable" in checks[name]["detail"] for name in ("indexes", "worker", "model"))
