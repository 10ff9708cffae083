"""Requests to reprocess and to cancel batches: bad input, the active model, and corrections meanwhile."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.queue import heartbeats
from shared.queues import IMAGES
from shared.storage.mongo import Db
from tests.integration.worker.images.reprocessed_batches import post, upload_batch
from tests.integration.worker.running import count, run
from worker.images.pipeline import ImagePipeline


def test_a_correction_of_the_barcode_reaches_the_shown_result_while_the_image_is_queued_again(web: FlaskClient, db: Db, pipeline: ImagePipeline) -> None:
    batch = upload_batch(web, db, 1)
    image_id = batch["images"][0]["id"]
    run(pipeline)
    post(web, batch["batch_id"], "reprocess", {"only": "all"})
    corrected = web.patch(f"/images/{image_id}", json={"barcode": "4006381333931"}).get_json()
    assert (corrected["status"], corrected["barcode_check"]) == ("queued", "not_read")
    run(pipeline)
    assert web.get(f"/images/{image_id}").get_json()["barcode_check"] == "not_read"


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/only", "missing"),
        ({"only": "some"}, "/only", "bad_value"),
        ({"only": "all", "augmentations": ["rotate", "nonsense"]}, "/augmentations/1", "unknown_augmentation"),
        ({"only": "all", "augmentations": "rotate"}, "/augmentations", "wrong_type"),
        ({"only": "all", "detect": "yes"}, "/detect", "wrong_type"),
        ({"only": "all", "model": "another"}, "/model", "unknown_model"),
        ({"only": "all", "other": 1}, "/other", "unknown_field"),
    ],
    ids=["nothing", "only", "augmentation", "no-list", "detect", "model", "unknown-member"],
)
def test_an_invalid_request_changes_nothing(web: FlaskClient, db: Db, pipeline: ImagePipeline, body: Any, pointer: str, code: str) -> None:
    batch = upload_batch(web, db, 1)
    run(pipeline)
    heartbeats.send_heartbeat(db, "w", IMAGES, model={"name": "m", "version": "1", "weights_sha256": "a" * 64})
    refused = post(web, batch["batch_id"], "reprocess", body, 422)
    assert [(error["pointer"], error["code"]) for error in refused["errors"]] == [(pointer, code)]
    assert count(db) == {"done": 1}


def test_the_active_model_is_what_a_worker_has_named(web: FlaskClient, db: Db, pipeline: ImagePipeline) -> None:
    batch = upload_batch(web, db, 1)
    run(pipeline)
    assert post(web, batch["batch_id"], "reprocess", {"only": "stale"}, 503)["code"] == "model_unknown"
    used = web.get(f"/images/{batch['images'][0]['id']}").get_json()["model"]
    heartbeats.send_heartbeat(db, "w", IMAGES, model=used)
    assert post(web, batch["batch_id"], "reprocess", {"only": "stale"}) == {"queued": 0, "generation": 0}
    assert post(web, batch["batch_id"], "reprocess", {"only": "all", "model": used["name"]})["queued"] == 1
    run(pipeline)
    heartbeats.send_heartbeat(db, "w", IMAGES, model=used | {"weights_sha256": "b" * 64})
    assert post(web, batch["batch_id"], "reprocess", {"only": "stale"}) == {"queued": 1, "generation": 2}


def test_a_finished_batch_is_not_cancelled_and_an_unknown_one_is_not_found(web: FlaskClient, db: Db, pipeline: ImagePipeline) -> None:
    batch = upload_batch(web, db, 1)
    run(pipeline)
    assert post(web, batch["batch_id"], "cancel", status=409)["code"] == "batch_closed"
    for action, body in (("cancel", {}), ("reprocess", {"only": "all"})):
        assert post(web, "0" * 32, action, body, 404)["code"] == "not_found"
        assert post(web, "nonsense", action, body, 404)["code"] == "not_found"
    web.delete(f"/image_batches/{batch['batch_id']}")
    assert post(web, batch["batch_id"], "reprocess", {"only": "all"}, 404)["code"] == "not_found"
