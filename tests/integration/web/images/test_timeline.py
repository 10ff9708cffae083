"""GET /images/<id>/timeline: what happens to an image, from its receipt to corrections, as the routes and the ledger record it."""

from datetime import datetime
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.catalog import image_tags
from shared.ledger import claims, results, turns
from shared.storage.mongo import Db
from tests.support.accounts import bearer, make_key, make_token, make_user
from tests.support.ledger import expire_leases, failed_results, process_all, successful_results
from tests.support.web_client import image_payload, post_batch


def upload(web: FlaskClient, headers: dict[str, str] | None = None, **fields: Any) -> str:
    return str(post_batch(web, [image_payload(**fields)], **(headers or {})).get_json()["images"][0]["id"])


def timeline_of(web: FlaskClient, image_id: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    response = web.get(f"/images/{image_id}/timeline", headers=headers)
    assert response.status_code == 200
    found: dict[str, Any] = response.get_json()
    moments = [datetime.fromisoformat(event["at"]) for event in found["events"]]
    assert (found["image_id"], moments) == (image_id, sorted(moments))
    return found


def claim(db: Db, owner: str = "w") -> claims.Claim:
    db.images.update_many({}, [{"$set": {"work.not_before": "$created_at"}}])
    turns.repair(db)
    return claims.claim(db, owner, 1, 60)


def process(db: Db) -> None:
    turns.repair(db)  # the web front makes the turn of a store after its response
    assert process_all(db) == 1


def test_a_new_image_waits_since_it_was_received(web: FlaskClient) -> None:
    image_id = upload(web)
    created_at = web.get(f"/images/{image_id}").get_json()["created_at"]
    assert timeline_of(web, image_id) == {
        "image_id": image_id, "status": "queued", "next_attempt_at": created_at, "omitted": 0,
        "events": [{"at": created_at, "type": "received", "by": None, "batch_id": image_id[:32]}],
    }  # fmt: skip


def test_attempts_are_shown_while_they_run_and_after_each_kind_of_end(web: FlaskClient, db: Db) -> None:
    image_id = upload(web)
    held = claim(db, "w1")
    running = timeline_of(web, image_id)
    event = running["events"][1]
    assert (running["status"], running["next_attempt_at"]) == ("processing", None)
    assert event == {
        "at": event["begun_at"], "type": "attempt", "number": 1, "worker": "w1", "begun_at": event["begun_at"], "ended_at": None, "outcome": None,
        "error": None, "steps": None,
    }  # fmt: skip
    claims.release(db, "w1", held.leases, "disk_full")
    waiting = timeline_of(web, image_id)
    assert datetime.fromisoformat(waiting["next_attempt_at"]) > datetime.fromisoformat(waiting["events"][1]["ended_at"])
    claims.release(db, "w2", claim(db, "w2").leases, "KeyError")
    claims.release(db, "w3", claim(db, "w3").leases, "SystemExit")
    expire_leases(db, [claim(db, "w4").images[0]["_id"]])
    claims.expire_leases(db)
    results.finish(db, "w5", failed_results(claim(db, "w5")))
    ended = timeline_of(web, image_id)
    assert (ended["status"], ended["omitted"]) == ("failed", 0)
    assert [(event["worker"], event["outcome"], event["error"]["code"]) for event in ended["events"][1:]] == [
        ("w1", "released", "disk_full"), ("w2", "released", "unexpected_error"), ("w3", "released", "worker_stopped"), ("w4", "expired", "lease_expired"),
        ("w5", "failed", "corrupt"),
    ]  # fmt: skip
    assert ended["events"][-1]["error"]["detail"] == "Broken."
    assert "KeyError" not in str(ended)


def test_a_crash_loop_is_shown_by_its_last_attempts(web: FlaskClient, db: Db) -> None:
    image_id = upload(web)
    for number in range(30):
        expire_leases(db, [claim(db, f"w{number}").images[0]["_id"]])
        claims.expire_leases(db)
    found = timeline_of(web, image_id)
    assert (found["omitted"], [event.get("number") for event in found["events"]]) == (10, [None, *range(11, 31)])
    claim(db)
    assert timeline_of(web, image_id)["omitted"] == 10


def test_a_reprocessing_that_failed_and_a_cancelled_one_are_shown_while_the_image_stays_done(web: FlaskClient, db: Db) -> None:
    image_id = upload(web)
    process(db)
    batch = f"/image_batches/{image_id[:32]}"
    assert web.post(f"{batch}/reprocess", json={"only": "all", "detect": False}).status_code == 202
    results.finish(db, "w", failed_results(claim(db)))
    web.post(f"{batch}/reprocess", json={"only": "all"})
    assert web.post(f"{batch}/cancel", json={}).status_code == 202
    found = timeline_of(web, image_id)
    assert found["status"] == "done"
    assert [(event["type"], event.get("outcome")) for event in found["events"]] == [
        ("received", None), ("attempt", "done"), ("reprocess_requested", None), ("attempt", "failed"), ("reprocess_requested", None), ("cancelled", None),
    ]  # fmt: skip
    first = found["events"][2]
    assert {name: value for name, value in first.items() if name not in {"at", "type"}} == {
        "by": None, "generation": 1, "job_id": None, "only": "all", "priority": "normal", "augmentations": None, "detect": False,
    }  # fmt: skip
    assert found["events"][3]["error"]["code"] == "corrupt"


def test_a_retry_of_a_failed_image_leaves_its_priority(web: FlaskClient, db: Db) -> None:
    image_id = upload(web)
    results.finish(db, "w", failed_results(claim(db)))
    assert web.post("/admin/dead-letters/retry", json={"ids": [image_id]}).get_json() == {"queued": 1}
    (event,) = (event for event in timeline_of(web, image_id)["events"] if event["type"] == "reprocess_requested")
    assert (event["only"], event["priority"], event["job_id"]) == ("failed", None, None)


@pytest.mark.parametrize("by", ["person", "key of a person", "key"])
def test_who_uploaded_an_image_has_the_same_name_as_who_changes_it(closed_web: FlaskClient, db: Db, by: str) -> None:
    user = make_user(db, "anna", role="admin")
    credentials = {"person": lambda: make_token(db, user), "key of a person": lambda: make_key(db, user=user), "key": lambda: make_key(db)}[by]()
    headers = bearer(credentials)
    image_id = upload(closed_web, headers)
    closed_web.patch(f"/images/{image_id}", json={"camera_id": "another"}, headers=headers)
    received, corrected = timeline_of(closed_web, image_id, headers)["events"]
    assert received["by"] == corrected["by"] == (f"key:{credentials.split('_')[1]}" if by == "key" else "anna")


def test_what_people_change_is_shown_with_their_names(closed_web: FlaskClient, db: Db) -> None:
    ann = make_key(db)
    web, headers = closed_web, bearer(ann)
    image_id = upload(web, headers, barcode="123")
    by = timeline_of(web, image_id, headers)["events"][0]["by"]
    assert by.startswith("key:")
    results.finish(db, "w", successful_results(claim(db), width=10, height=10, barcodes=[]))
    path = f"/images/{image_id}"
    before = web.get(path, headers=headers).get_json()
    web.patch(path, json={"timestamp": "2026-02-03T04:05:06Z", "barcode": None, "extra": {"a": 1}}, headers=headers)
    web.put(f"{path}/annotations", json={"boxes": [{"label": "pear", "box": [0, 0, 5, 5]}]}, headers=headers)
    web.delete(f"{path}/annotations", headers=headers)
    web.post(f"{path}/tags", json={"tags": ["a", "b", "c"]}, headers=headers)
    web.put(f"{path}/tags", json={"tags": ["c", "d"]}, headers=headers)
    web.delete(f"{path}/tags/d", headers=headers)
    web.delete("/tags/a", headers=headers)  # the names of deleted tags are left out
    web.patch("/tags/c", json={"name": "renamed"}, headers=headers)
    events = timeline_of(web, image_id, headers)["events"]
    assert {event["by"] for event in events if event["type"] != "attempt"} == {by}
    changes = [{name: value for name, value in event.items() if name not in {"at", "by"}} for event in events if event["type"] not in {"received", "attempt"}]
    assert changes == [
        {"type": "corrected", "field": "barcode", "from": "123", "to": None},
        {"type": "corrected", "field": "extra", "from": None, "to": None},
        {"type": "corrected", "field": "timestamp", "from": before["timestamp"], "to": "2026-02-03T04:05:06Z"},
        {"type": "annotated", "boxes": 1},
        {"type": "annotated", "boxes": None},
        {"type": "tagged", "tag": "renamed"},
        {"type": "untagged", "tags": ["b"], "number": 2},
        {"type": "untagged", "tags": ["d"], "number": 1},
    ]


def test_a_reader_of_one_store_does_not_see_the_name_of_the_store_that_an_image_came_from(closed_web: FlaskClient, db: Db) -> None:
    headers = bearer(make_key(db))
    image_id = upload(closed_web, headers, store_name="north")
    closed_web.patch(f"/images/{image_id}", json={"store_name": "south"}, headers=headers)
    moved = timeline_of(closed_web, image_id, headers)["events"][-1]
    assert (moved["field"], moved["from"], moved["to"]) == ("store_name", "north", "south")
    moved = timeline_of(closed_web, image_id, bearer(make_key(db, "viewer", ["south"])))["events"][-1]
    assert (moved["from"], moved["to"]) == (None, "south")
    refused = closed_web.get(f"/images/{image_id}/timeline", headers=bearer(make_key(db, "viewer", ["north"])))
    assert (refused.status_code, refused.get_json(force=True)["code"]) == (404, "not_found")


@pytest.mark.parametrize("image_id", ["0" * 36, "nonsense", "A" * 36])
def test_an_unknown_image_is_404_and_a_parameter_is_422(web: FlaskClient, image_id: str) -> None:
    assert web.get(f"/images/{image_id}/timeline").status_code == 404
    assert web.get(f"/images/{upload(web)}/timeline?page=1").status_code == 422


def test_a_deleted_image_has_no_timeline(web: FlaskClient) -> None:
    image_id = upload(web)
    web.delete(f"/images/{image_id}")
    assert web.get(f"/images/{image_id}/timeline").status_code == 404


def test_the_recorded_fields_are_in_no_other_response(web: FlaskClient, db: Db) -> None:
    image_id = upload(web)
    process(db)
    before = web.get(f"/images/{image_id}")
    patched = web.patch(f"/images/{image_id}", json={"camera_id": "other"})
    stored = db.images.find_one({"_id": image_id})
    assert stored is not None
    assert {"history", "corrections"} <= stored.keys()
    listed = [web.get("/images").get_json()["images"][0], web.get("/image_batches").get_json()["batches"][0]["images"][0]]
    for shown in (web.get(f"/images/{image_id}").get_json(), patched.get_json(), *listed):
        assert shown.keys() == before.get_json().keys()
    assert patched.headers["ETag"] == '"done-1-1"'
    assert before.headers["ETag"] == '"done-1-0"'
    assert image_tags.read_image(db, image_id, None).keys() == {"_id", "tags"}
