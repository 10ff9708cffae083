"""``/jobs``: who sees, cancels and undoes which jobs, and how they are shown."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.catalog import bulk_tags
from shared.jobs import claims, progress
from shared.jobs.progress import HeldJob
from shared.storage.mongo import Db
from tests.integration.shared.jobs.requesting import request_job
from tests.integration.worker.jobs.tagging import make_images
from tests.support.accounts import bearer, make_key, make_user

SHOWN = {"id", "kind", "status", "total", "done", "changed", "errors", "created_at", "cancel_requested", "finished_at", "undo_until", "undone_by"}


def finish_next(db: Db, status: str = "done") -> str:
    claimed = claims.claim(db, "worker", 60)
    assert claimed is not None
    held = HeldJob("worker", claimed)
    assert progress.finish(db, held, status, {"code": "rights_lost", "detail": "Lost."} if status == "failed" else None)
    return held.id


def test_a_job_is_shown_from_its_request_to_its_undo(web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_tags, "MAX_IN_REQUEST", 1)
    make_images(db, 3)
    answer = web.post("/images/tags", json={"filters": {"store_name": "north"}, "add": ["sale"]})
    path = answer.headers["Location"]
    job = web.get(path).get_json()
    assert set(job) == SHOWN
    assert (job["kind"], job["status"], job["total"], job["done"], job["errors"]) == ("bulk_tags", "queued", None, 0, [])
    assert job["created_at"].endswith("Z")
    assert (job["finished_at"], job["undo_until"], job["undone_by"]) == (None, None, None)
    assert claims.claim(db, "worker", 60) is not None
    job = web.get(path).get_json()
    assert (job["status"], job["cancel_requested"]) == ("running", False)
    for _ in range(2):
        job = web.post(f"{path}/cancel").get_json()
        assert (job["status"], job["cancel_requested"]) == ("running", True)
    db.jobs.update_one({}, [{"$set": {"lease_until": {"$subtract": ["$$NOW", 1]}}}])
    claims.expire_leases(db)
    finish_next(db, "failed")
    job = web.get(path).get_json()
    assert (job["status"], job["errors"]) == ("failed", [{"code": "rights_lost", "detail": "Lost."}])
    assert job["undo_until"] is None  # it has changed nothing
    db.jobs.update_one({}, {"$set": {"changed": 1}})
    job = web.get(path).get_json()
    assert job["undo_until"] > job["finished_at"]
    undo = web.post(f"{path}/undo", json={})
    assert (undo.status_code, undo.headers["Location"]) == (202, f"/jobs/{undo.get_json()['job_id']}")
    assert web.get(undo.headers["Location"]).get_json()["kind"] == "undo"
    job = web.get(path).get_json()
    assert (job["undone_by"], job["undo_until"]) == (undo.get_json()["job_id"], None)
    assert [shown["id"] for shown in web.get("/jobs").get_json()["jobs"]] == [undo.get_json()["job_id"], job["id"]]


def test_changes_that_are_not_possible_are_409(web: FlaskClient, db: Db) -> None:
    job_id = request_job(db)["_id"]

    def code(action: str, of: str = job_id) -> Any:
        answer = web.post(f"/jobs/{of}/{action}")
        return answer.status_code, answer.get_json().get("code")

    assert code("undo") == (409, "job_unfinished")
    finish_next(db)
    assert code("cancel") == (409, "job_finished")
    undo_id = web.post(f"/jobs/{job_id}/undo").get_json()["job_id"]
    assert code("undo") == (409, "already_undone")
    assert code("cancel", undo_id) == (200, None)
    assert code("undo", undo_id) == (409, "not_undoable")


@pytest.mark.parametrize("path", ["/jobs/{}", "/jobs/{}/cancel", "/jobs/{}/undo"])
@pytest.mark.parametrize("job_id", ["0" * 32, "x", "%00", "0" * 33])
def test_an_unknown_job_is_404(web: FlaskClient, path: str, job_id: str) -> None:
    answer = web.open(path.format(job_id), method="GET" if path == "/jobs/{}" else "POST")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")


def test_bad_parameters_and_bodies_are_422(web: FlaskClient, db: Db) -> None:
    job_id = request_job(db)["_id"]
    for url in ("/jobs?page=2", "/jobs?per_page=101", "/jobs?cursor=x", f"/jobs/{job_id}?x=1"):
        assert web.get(url).status_code == 422
    for action in ("cancel", "undo"):
        assert web.post(f"/jobs/{job_id}/{action}", json={"force": True}).get_json()["errors"][0]["pointer"] == "/force"
    assert web.get(f"/jobs/{job_id}").get_json()["status"] == "queued"


def test_jobs_are_paged_by_cursor(web: FlaskClient, db: Db) -> None:
    made = [request_job(db, f"user:{number}")["_id"] for number in range(5)]
    found, cursor = [], ""
    while cursor is not None:
        page = web.get(f"/jobs?per_page=2{cursor and f'&cursor={cursor}'}").get_json()
        assert len(page["jobs"]) <= 2
        found += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
    assert found == made[::-1]


def test_a_key_for_fewer_stores_than_a_job_of_its_account_does_not_reach_it(closed_web: FlaskClient, db: Db) -> None:
    anna = make_user(db, "anna", "tagger")
    job_id = request_job(db, f"user:{anna.id}")["_id"]
    narrow, wide = (bearer(make_key(db, "tagger", stores, user=anna)) for stores in (["north"], ["*"]))
    assert closed_web.get("/jobs", headers=narrow).get_json()["jobs"] == []
    assert closed_web.get(f"/jobs/{job_id}", headers=narrow).status_code == 404
    for action in ("cancel", "undo"):
        answer = closed_web.post(f"/jobs/{job_id}/{action}", headers=narrow)
        assert (answer.status_code, answer.get_json()["code"]) == (403, "foreign_store")
    assert closed_web.post(f"/jobs/{job_id}/cancel", headers=wide).get_json()["status"] == "cancelled"
    assert closed_web.post(f"/jobs/{job_id}/undo", headers=narrow).get_json()["code"] == "foreign_store"
    assert closed_web.post(f"/jobs/{job_id}/undo", headers=wide).status_code == 202


def test_an_account_reaches_its_own_jobs_and_only_an_administrator_of_all_stores_reaches_all(closed_web: FlaskClient, db: Db) -> None:
    anna, berta = make_user(db, "anna", "tagger", ["north"]), make_user(db, "berta", "tagger")
    of_anna = request_job(db, f"user:{anna.id}", stores=frozenset({"north"}))["_id"]
    of_berta = request_job(db, f"user:{berta.id}")["_id"]
    keys = {
        make_key(db, "tagger", ["north"], user=anna): {of_anna},
        make_key(db, "viewer", user=berta): {of_berta},
        make_key(db, "admin", ["north"]): set(),
        make_key(db, "admin"): {of_anna, of_berta},
    }
    for key, visible in keys.items():
        assert {job["id"] for job in closed_web.get("/jobs", headers=bearer(key)).get_json()["jobs"]} == visible
        for job_id in (of_anna, of_berta):
            assert closed_web.get(f"/jobs/{job_id}", headers=bearer(key)).status_code == (200 if job_id in visible else 404)
            if job_id not in visible:
                for action in ("cancel", "undo"):
                    assert closed_web.post(f"/jobs/{job_id}/{action}", headers=bearer(key)).status_code in {403, 404}
    assert closed_web.post(f"/jobs/{of_anna}/cancel", headers=bearer([*keys][3])).get_json()["status"] == "cancelled"
    assert db.jobs.count_documents({"status": "queued"}) == 1
