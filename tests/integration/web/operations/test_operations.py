"""Whether it is ready and balances, as machines that watch ask for it."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared import settings
from shared.queue import heartbeats
from shared.queues import IMAGES
from shared.storage.mongo import Db
from tests.support.web_client import image_payload, make_client, post_batch

pytestmark = pytest.mark.slow


def test_a_document_removed_by_hand_shows_in_the_metric(web: FlaskClient, db: Db) -> None:
    said = post_batch(web, [image_payload(), image_payload()]).get_json()
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
    heartbeats.send_heartbeat(db, "one", IMAGES, "model_unusable")
    checks = web.get("/readyz").get_json()["checks"]
    assert {name for name, check in checks.items() if not check["ok"]} >= {"worker", "model"}
    assert "VISION_MODEL" in checks["model"]["detail"]
    heartbeats.send_heartbeat(db, "another", IMAGES)
    checks = web.get("/readyz").get_json()["checks"]
    assert checks["worker"]["ok"]
    assert checks["model"]["ok"]


def test_a_server_that_is_drained_is_not_ready_and_serves_on(
    mongo: settings.Mongo, db: Db, blobs_root: Path, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain = tmp_path / "drain"
    monkeypatch.setenv("WEB_DRAIN_FILE", str(drain))
    web = make_client(mongo, blobs_root, redis_url)
    heartbeats.send_heartbeat(db, "a worker", IMAGES)
    assert web.get("/readyz").status_code == 200
    drain.touch()
    heartbeats.send_heartbeat(db, "a worker", IMAGES)
    answer = web.get("/readyz")
    checks = answer.get_json()["checks"]
    assert (answer.status_code, answer.get_json()["code"]) == (503, "not_ready")
    assert [name for name, check in checks.items() if not check["ok"]] == ["draining"]
    assert "drained" in checks["draining"]["detail"]
    assert str(drain) not in answer.get_data(as_text=True)
    said = post_batch(web, [image_payload()])
    assert said.status_code == 202
    assert all(web.get(path).status_code == 200 for path in (said.headers["Location"], "/image_batches", "/healthz", "/"))
    drain.unlink()
    heartbeats.send_heartbeat(db, "a worker", IMAGES)
    assert web.get("/readyz").status_code == 200


def test_readyz_blames_nobody_else_for_a_database_that_is_away(mongo: settings.Mongo, blobs_root: Path) -> None:
    nowhere = mongo.model_copy(update={"url": "mongodb://127.0.0.1:1/", "server_selection_timeout_s": 0.2})
    checks = make_client(nowhere, blobs_root).get("/readyz").get_json()["checks"]
    assert [name for name, check in checks.items() if check["ok"]] == ["blobs", "disk", "draining"]
    assert all("without MongoDB" in checks[name]["detail"] for name in ("worker", "model"))
