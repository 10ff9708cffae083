"""A MongoDB that refuses an operation is not reported as a MongoDB that does not respond."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared import settings, telemetry
from shared.bootstrap import open_stores
from shared.errors import InFlight, StoreMisconfigured, StoreRefused
from shared.ledger import claims, commits, idempotency
from shared.settings import Settings
from shared.storage import mongo_errors
from shared.storage.migrations import runner
from shared.storage.mongo import Db, connect, translate_errors
from tests.support.ledger import new_batch
from tests.support.service_stack import wait_until
from tests.support.web_client import image_payload, make_client, post_batch
from worker.sweep.sweep import Sweep


@pytest.fixture(autouse=True)
def _forget_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo_errors, "_reported", telemetry.RepeatLimit(60))


@pytest.fixture
def without_access(mongo: settings.Mongo) -> settings.Mongo:
    """Return settings with a user that MongoDB does not know."""
    return mongo.model_copy(update={"url": re.sub("//.*@", "//nobody:wrong@", mongo.url), "server_selection_timeout_s": 0.2})


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Return the log of errors. It is also captured when a web application has replaced the handlers of all logs."""
    caplog.set_level(logging.INFO, telemetry.errors.name)
    telemetry.errors.addHandler(caplog.handler)
    yield caplog
    telemetry.errors.removeHandler(caplog.handler)


def test_a_missing_index_is_reported_until_migrate_has_created_it(web: FlaskClient, db: Db, log: pytest.LogCaptureFixture) -> None:
    runner.migrate(db)
    db.images.drop_index("claimable_by_turn")
    with pytest.raises(StoreMisconfigured, match="scripts/admin migrate"):
        claims.has_claimable(db)
    assert "hint provided does not correspond to an existing index" in log.text
    assert "code 2 (BadValue)" in log.text
    check = web.get("/readyz").get_json()["checks"]["indexes"]
    assert not check["ok"]
    assert "images.claimable" in check["detail"]
    assert "scripts/admin migrate" in check["detail"]

    runner.migrate(db)
    assert claims.has_claimable(db) is False
    # A process runs its checks at most once a second.
    wait_until(lambda: web.get("/readyz").get_json()["checks"]["indexes"]["ok"], 20, "the check finds the index")


def test_the_sweep_logs_what_is_missing_and_how_it_is_repaired(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str, log: pytest.LogCaptureFixture) -> None:
    stores = open_stores(Settings(mongo=mongo, blobs=settings.Blobs(root=blobs_root), redis=settings.Redis(url=redis_url)), app="test", db=db)
    db.images.drop_index("claimable_by_turn")
    Sweep(stores).tick()
    failed = [record.getMessage() for record in log.records if record.getMessage().startswith("sweep: ")]
    assert any("database_misconfigured" in message and "scripts/admin migrate" in message for message in failed)
    for publisher in stores.wakeups.values():
        publisher.close()


def test_a_user_without_access_gets_a_code_of_its_own(without_access: settings.Mongo, db: Db, blobs_root: Path, log: pytest.LogCaptureFixture) -> None:
    web = make_client(without_access, blobs_root)
    for response in (web.get("/image_batches"), post_batch(web, [image_payload()])):
        assert (response.status_code, response.get_json(force=True)["code"]) == (503, "database_misconfigured")
        assert response.headers["Retry-After"] == "30"
        assert "MONGODB_URL" in response.get_json(force=True)["detail"]
        assert "Authentication" not in response.get_data(as_text=True)
    checks = web.get("/readyz").get_json()["checks"]
    assert "MONGODB_URL" in checks["mongodb"]["detail"]
    assert checks["blobs"]["ok"]
    logged = {record.getMessage(): record.levelno for record in log.records if record.getMessage().startswith("MongoDB: ")}
    assert set(logged.values()) == {logging.ERROR}
    assert len(logged) <= 2  # once per class of the driver's error
    assert any("code 18 (AuthenticationFailed): Authentication failed." in message for message in logged)
    assert db.batches.find_one() is None


def test_a_key_that_cannot_be_confirmed_for_lack_of_access_is_not_in_flight(
    db: Db, without_access: settings.Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_key = idempotency.RequestKey("key", "print")
    commits.commit_batch(db, new_batch(1), request_key=request_key, response_body={})
    record = db.idempotency.find_one({"_id": "key"})
    assert record is not None
    away = without_access.model_copy(update={"url": "mongodb://127.0.0.1:1/"})
    for unusable, expected, limit_s in ((without_access, StoreMisconfigured, 5.0), (away, InFlight, 0.1)):
        monkeypatch.setattr(idempotency, "_PROOF_S", limit_s)
        other = connect(unusable, app="test")
        with pytest.raises(expected):
            idempotency._read_response(other, record)
        other.client.close()


def test_a_commit_that_mongodb_refuses_is_an_internal_error_and_accepts_nothing(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    db.command("collMod", "batches", validator={"never": {"$exists": True}})
    batch = new_batch(1)
    with pytest.raises(StoreRefused):
        commits.commit_batch(db, batch)
    assert db.ledger.find_one({"_id": batch.id}) is None
    assert db.images.find_one({"batch_id": batch.id}) is None


def test_a_write_that_mongodb_refuses_is_logged_with_its_reason(db: Db, log: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StoreRefused), translate_errors():
        db.images.update_one({"_id": "a"}, {"$set": {"status": "done"}, "$currentDate": {"status": True}}, upsert=True)
    assert "code 40" in log.text
    assert "would create a conflict at 'status'" in log.text
