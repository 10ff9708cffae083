"""Uploads are refused when accepted images have waited for too long, and only then."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared import settings, telemetry
from shared.ledger import claims, turns
from shared.queue import pauses
from shared.queues import IMAGES
from shared.storage.mongo import Db
from tests.support.web_client import image_payload, make_client, post_batch

DAY_S = 86_400
Start = Callable[..., FlaskClient]


def let_wait(db: Db, seconds: float) -> None:
    """Make all images and their stores wait for some seconds longer than they do."""
    past = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=seconds)
    db.batches.update_many({}, {"$set": {"created_at": past}})
    db.images.update_many({}, {"$set": {"created_at": past}})
    db.account_turns.update_many({}, {"$set": {"served_at": past}})


@pytest.fixture(name="start")
def make_starter(db: Db, mongo: settings.Mongo, blobs_root: Path) -> Start:
    """Return a function that makes a client of a new web process, after all images have waited for some seconds."""

    def start(waited_s: float, **limits: Any) -> FlaskClient:
        let_wait(db, waited_s)
        return make_client(mongo, blobs_root, **limits)

    return start


@pytest.fixture(autouse=True)
def accepted(web: FlaskClient, db: Db) -> str:
    """Accept a batch with a key, which no worker processes; return its id."""
    batch_id = str(post_batch(web, [image_payload()], Idempotency_Key="first").get_json()["batch_id"])
    turns.repair(db)  # the thread of the web process may not have done it yet
    return batch_id


@pytest.mark.parametrize("body", [[image_payload()], b"{"], ids=["valid", "malformed"])
def test_after_a_day_an_upload_is_refused_before_its_body_is_read(start: Start, db: Db, body: object) -> None:
    response = post_batch(start(DAY_S + 60), body)
    problem = response.get_json()
    assert (response.status_code, problem["code"]) == (429, "temporary_reduced_capacity")
    assert (problem["limit"], problem["value"]) == ("max_queue_age_s", DAY_S)
    assert DAY_S < problem["age_s"] < DAY_S + 3600
    assert int(response.headers["Retry-After"]) >= 60
    assert db.batches.count_documents({}) == 1


def test_a_repeated_upload_gets_its_first_answer(start: Start, accepted: str) -> None:
    web = start(DAY_S + 60)
    response = post_batch(web, [image_payload()], Idempotency_Key="first")
    assert (response.status_code, response.get_json()["batch_id"]) == (202, accepted)
    assert post_batch(web, [image_payload()], Idempotency_Key="second").status_code == 429


@pytest.mark.parametrize(("waited_s", "limits"), [(DAY_S - 3600, {}), (30 * DAY_S, {"max_queue_age_s": 0}), (7200, {"max_queue_age_s": 10_000})], ids=["a shorter wait", "no limit", "a shorter wait than set"])
def test_stopped_workers_refuse_nothing_before(start: Start, waited_s: float, limits: dict[str, int]) -> None:
    assert post_batch(start(waited_s, **limits), [image_payload()]).status_code == 202


def test_images_that_no_worker_has_to_take_up_do_not_count(start: Start, db: Db) -> None:
    assert claims.claim(db, "w", 10, 60).images
    assert post_batch(start(2 * DAY_S), [image_payload()]).status_code == 202


def test_old_images_of_a_store_that_a_worker_has_just_served_refuse_nothing(web: FlaskClient, mongo: settings.Mongo, blobs_root: Path, db: Db) -> None:
    post_batch(web, [image_payload()] * 3)
    let_wait(db, 2 * DAY_S)
    assert claims.claim(db, "w", 1, 60).images
    assert post_batch(make_client(mongo, blobs_root), [image_payload()]).status_code == 202


def test_the_queue_may_be_paused_for_a_day_as_its_description_says(start: Start, db: Db) -> None:
    pauses.pause(db, IMAGES, None)
    assert post_batch(start(DAY_S - 3600), [image_payload()]).status_code == 202
    web = start(DAY_S + 60)
    code = post_batch(web, [image_payload()]).get_json()["code"]
    description = web.get("/openapi.json").get_json()["paths"]["/admin/queues/{queue_name}/pause"]["post"]["description"]
    assert f"429 {code}" in description


def test_the_log_names_the_batch_that_waits_once(start: Start, accepted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[Any, ...]] = []
    monkeypatch.setattr(telemetry.errors, "warning", lambda *line: logged.append(line) if "refused" in line[0] else None)
    web = start(DAY_S + 60)
    assert {post_batch(web, [image_payload()]).status_code for _ in range(3)} == {429}
    ((_, batch_id, waited_s),) = logged
    assert batch_id == accepted
    assert DAY_S < waited_s < DAY_S + 3600


def test_reads_are_answered_as_ever(start: Start, accepted: str) -> None:
    web = start(DAY_S + 60)
    assert post_batch(web, [image_payload()]).status_code == 429
    assert web.get(f"/image_batches/{accepted}").status_code == 200
