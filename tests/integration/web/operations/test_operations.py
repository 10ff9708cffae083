"""Readiness and metrics, as monitoring reads them."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared import settings
from shared.queue import heartbeats
from shared.queues import IMAGES
from shared.storage.mongo import Db
from tests.support.web_client import image_payload, make_client, post_batch

pytestmark = pytest.mark.slow


def test_a_document_removed_by_hand_shows_in_the_metrics(web: FlaskClient, db: Db) -> None:
    accepted = post_batch(web, [image_payload(), image_payload()]).get_json()
    db.images.delete_one({"_id": accepted["images"][0]["id"]})
    metrics = web.get("/metrics").get_data(as_text=True)
    assert 'state="received"} 2.0' in metrics
    assert 'state="pending"} 1.0' in metrics


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
