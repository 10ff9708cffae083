"""``/admin/dead-letters``: failed images with the reason, and how they are processed again."""

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared import settings
from shared.ledger import cancellation, claims, reprocessing, results
from shared.ledger.reprocessing import Options
from shared.storage.mongo import Db
from tests.integration.worker.jobs.reprocessing import (
    fail_all,
    make_done,
    times_queued,
)
from tests.integration.worker.jobs.tagging import (
    make_images,
    make_worker,
    read_job,
    run,
)
from tests.support.accounts import bearer, make_key
from tests.support.ledger import commit_new_batch, failed_results


def make_failed(db: Db, count: int, store: str = "north", code: str = "corrupt") -> list[str]:
    make_images(db, count, store)
    return fail_all(db, code)


def retry(web: FlaskClient, body: Any, status: int = 202, headers: dict[str, str] | None = None) -> Any:
    answer = web.post("/admin/dead-letters/retry", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.get_json()


def do_jobs(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    worker = make_worker(db, mongo, blobs_root)
    run(worker)
    worker.stop()


def test_a_failed_image_is_shown_with_its_reason(web: FlaskClient, db: Db) -> None:
    (name,) = make_failed(db, 1)
    page = web.get("/admin/dead-letters").get_json()
    (letter,) = page["dead_letters"]
    assert letter.pop("failed_at").endswith("Z")
    assert letter == {
        "id": name, "batch_id": name[:32], "index": 0, "store_name": "north", "camera_id": "cam", "code": "corrupt", "detail": "Broken.", "attempts": 1,
    }  # fmt: skip
    assert (page["next_cursor"], page["codes"]) == (None, {"corrupt": 1})
    assert retry(web, {"ids": [name]}) == {"queued": 1}
    assert web.get("/admin/dead-letters").get_json() == {"dead_letters": [], "next_cursor": None, "codes": {}}
    fail_all(db)
    assert web.get("/admin/dead-letters").get_json()["dead_letters"][0]["attempts"] == 2


def test_the_list_is_filtered_and_paged(web: FlaskClient, db: Db) -> None:
    north, south = make_failed(db, 3), make_failed(db, 3, "south", "truncated")

    def ids(query: str) -> list[str]:
        found, cursor = [], ""
        while cursor is not None:
            page = web.get(f"/admin/dead-letters?per_page=2&{query}{cursor and f'&cursor={cursor}'}").get_json()
            found += [letter["id"] for letter in page["dead_letters"]]
            cursor = page["next_cursor"]
        return found

    assert ids("") == [*south[::-1], *north[::-1]]
    assert ids("code=truncated") == ids("store_name=south") == ids("store_name=south&code=truncated") == south[::-1]
    assert ids("store_name=south&code=corrupt") == []
    assert web.get("/admin/dead-letters?store_name=south&code=none").get_json()["codes"] == {"truncated": 3}
    for query in ("cursor=x", "per_page=0", "per_page=101", "page=1", "code=", f"code={'x' * 201}", "status=failed"):
        assert web.get(f"/admin/dead-letters?{query}").status_code == 422


def test_an_administrator_of_some_stores_sees_and_retries_their_images_only(closed_web: FlaskClient, db: Db) -> None:
    north, south = make_failed(db, 2), make_failed(db, 2, "south")
    mixed = commit_new_batch(db, store=["north", "south"])
    in_mixed = fail_all(db)
    key = bearer(make_key(db, "admin", ["north"]))
    page = closed_web.get("/admin/dead-letters", headers=key).get_json()
    assert [letter["id"] for letter in page["dead_letters"]] == [in_mixed[0], *north[::-1]]
    assert page["codes"] == {"corrupt": 3}
    refused = retry(closed_web, {"ids": [north[0], south[1], south[0]]}, 403, headers=key)
    assert (refused["code"], [(error["pointer"], error["code"]) for error in refused["errors"]]) == ("foreign_store", [("/ids/1", "foreign_store"), ("/ids/2", "foreign_store")])
    refused = retry(closed_web, {"ids": [north[0], in_mixed[0]]}, 403, headers=key)
    assert [(error["pointer"], error["code"]) for error in refused["errors"]] == [("/ids/1", "foreign_store")]
    assert times_queued(db) == {}
    assert retry(closed_web, {"ids": north}, headers=key) == {"queued": 2}
    assert retry(closed_web, {"ids": in_mixed}, headers=bearer(make_key(db, "admin"))) == {"queued": 2}
    assert db.batches.find_one({"_id": mixed})["generation"] == 1  # type: ignore[index]


def test_only_failed_images_are_queued(web: FlaskClient, db: Db) -> None:
    failed, done, queued = make_failed(db, 3), make_done(db, 2), make_images(db, 1)
    assert retry(web, {"ids": [*failed, *done, *queued, failed[0]]}) == {"queued": 3}
    assert retry(web, {"ids": failed}) == {"queued": 0}
    assert times_queued(db) == dict.fromkeys(failed, 1)
    events = [(event["type"], event["details"]) for event in db.audit_events.find({}, {"type": 1, "details": 1})]
    assert events == [("images.reprocessed", {"only": "failed", "images": 3, "batches": [failed[0][:32]], "more_batches": 0})]


def test_the_security_log_names_some_of_the_batches_of_a_retry(web: FlaskClient, db: Db) -> None:
    failed = [make_failed(db, 1)[0] for _ in range(22)]
    make_done(db, 1)
    assert retry(web, {"ids": failed}) == {"queued": 22}
    (event,) = db.audit_events.find({"type": "images.reprocessed"})
    assert (event["details"]["images"], event["details"]["more_batches"]) == (22, 2)
    assert event["details"]["batches"] == sorted(name[:32] for name in failed)[:20]


def test_unknown_ids_are_named_and_nothing_is_queued(web: FlaskClient, db: Db) -> None:
    failed = make_failed(db, 2)
    refused = retry(web, {"ids": [failed[0], "0" * 36, failed[1], "f" * 36]}, 422)
    assert (refused["code"], [error["pointer"] for error in refused["errors"]]) == ("unknown_image", ["/ids/1", "/ids/3"])
    assert times_queued(db) == {}


def test_a_thousand_images_are_queued_at_once(web: FlaskClient, db: Db) -> None:
    failed = make_failed(db, 1001)
    assert retry(web, {"ids": failed}, 422)["errors"][0]["pointer"] == "/ids"
    assert retry(web, {"ids": failed[:1000]}) == {"queued": 1000}
    assert set(times_queued(db)) == set(failed[:1000])


def test_the_images_of_a_batch_that_is_being_cancelled_are_left(web: FlaskClient, db: Db) -> None:
    batch_id = commit_new_batch(db, 2)
    claim = claims.claim(db, "w", 1, 60)
    claims.claim(db, "slow", 1, 60)
    results.finish(db, "w", failed_results(claim))
    cancellation.cancel(db, batch_id, None)
    assert retry(web, {"ids": [image["_id"] for image in claim.images]}) == {"queued": 0}


def test_all_images_with_a_code_are_retried_in_a_job_that_keeps_options_and_priority(
    web: FlaskClient, db: Db, mongo: settings.Mongo, blobs_root: Path
) -> None:
    corrupt, truncated = make_failed(db, 5), make_failed(db, 4, code="truncated")
    make_done(db, 2)
    db.images.update_many({"_id": {"$in": truncated}}, {"$set": {"work.priority": "high"}})
    answer = web.post("/admin/dead-letters/retry", json={"filters": {"code": "truncated", "store_name": "north"}})
    job_id = answer.get_json()["job_id"]
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/jobs/{job_id}")
    do_jobs(db, mongo, blobs_root)
    job = web.get(f"/jobs/{job_id}").get_json()
    assert (job["kind"], job["status"], job["total"], job["done"], job["changed"], job["errors"], job["undo_until"]) == ("reprocess", "done", 4, 4, 4, [], None)
    assert times_queued(db) == dict.fromkeys(truncated, 1)
    works = [image["work"] for image in db.images.find({"_id": {"$in": truncated}})]
    assert [(work["priority"], work["augmentations"], work["detect"]) for work in works] == [("high", ["rotate"], True)] * 4
    fail_all(db)
    everything = retry(web, {"filters": {}})["job_id"]
    do_jobs(db, mongo, blobs_root)
    assert read_job(db, everything)["changed"] == 9
    assert times_queued(db, everything) == dict.fromkeys([*corrupt, *truncated], 1)
    events = [(event["target"], event["details"]) for event in db.audit_events.find({"type": "images.reprocessed"}).sort("_id", 1)]
    assert events == [
        (f"job:{job_id}", {"only": "failed", "filters": ["code=truncated", "store_name=north"]}),
        (f"job:{everything}", {"only": "failed", "filters": []}),
    ]
    assert web.post(f"/jobs/{job_id}/undo").get_json()["code"] == "not_undoable"


def test_an_image_that_was_processed_meanwhile_is_left_by_the_job(web: FlaskClient, db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    failed = make_failed(db, 3)
    job_id = retry(web, {"filters": {}})["job_id"]
    reprocessing.reprocess_images(db, failed[:1], {}, Options(), None)
    do_jobs(db, mongo, blobs_root)
    assert (read_job(db, job_id)["done"], read_job(db, job_id)["changed"]) == (2, 2)


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "", "missing"),
        ({"ids": []}, "", "missing"),
        ({"ids": ["x"]}, "/ids/0", "bad_value"),
        ({"ids": [1]}, "/ids/0", "wrong_type"),
        ({"ids": "x"}, "/ids", "wrong_type"),
        ({"ids": ["0" * 36], "filters": {}}, "/filters", "bad_value"),
        ({"ids": [], "filters": {}}, "/filters", "bad_value"),
        ({"ids": ["0" * 36], "filters": None}, "/filters", "wrong_type"),
        ({"ids": None, "filters": {}}, "/ids", "wrong_type"),
        ({"filters": []}, "/filters", "wrong_type"),
        ({"filters": {"status": "failed"}}, "/filters/status", "not_supported"),
        ({"filters": {"code": 1}}, "/filters/code", "wrong_type"),
        ({"filters": {"code": None}}, "/filters/code", "wrong_type"),
        ({"filters": {"code": True, "store_name": "north"}}, "/filters/code", "wrong_type"),
        ({"filters": {"code": ""}}, "/filters/code", "empty"),
        ({"filters": {"code": " "}}, "/filters/code", "empty"),
        ({"filters": {"code": "x" * 201}}, "/filters/code", "bad_value"),
        ({"filters": {"code": "a\0"}}, "/filters/code", "bad_value"),
        ({"filters": {"store": "north"}}, "/filters/store", "unknown_field"),
        ({"filters": {"since": "yesterday"}}, "/filters/since", "bad_value"),
        ({"filters": {"held": True}}, "/filters/held", "not_supported"),
        ({"filters": {}, "detect": True}, "/detect", "unknown_field"),
        ({"ids": ["0" * 36], "model": "m"}, "/model", "unknown_field"),
    ],
    ids=[
        "nothing", "no-ids", "id", "id-type", "ids-type", "both", "both-empty", "filters-null", "ids-null", "filters-type", "status", "code-type",
        "code-null", "code-boolean", "code-empty", "code-blank", "code-long", "code-nul", "unknown-filter",
        "time", "held", "detect", "model",
    ],
)  # fmt: skip
def test_an_invalid_request_queues_nothing(web: FlaskClient, db: Db, body: Any, pointer: str, code: str) -> None:
    make_failed(db, 1)
    refused = retry(web, body, 422)
    assert [(error["pointer"], error["code"]) for error in refused["errors"]] == [(pointer, code)]
    assert times_queued(db) == {}
    assert db.jobs.count_documents({}) == 0


def test_a_key_with_the_scope_admin_alone_retries(closed_web: FlaskClient, db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    make_failed(db, 3)
    key = bearer(make_key(db, None, scopes=["admin"]))
    job_id = retry(closed_web, {"filters": {}}, headers=key)["job_id"]
    do_jobs(db, mongo, blobs_root)
    assert (read_job(db, job_id)["status"], read_job(db, job_id)["changed"]) == ("done", 3)
