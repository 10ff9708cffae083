"""``POST /image_batches/<id>/cancel``: bad requests, foreign stores, and open access."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.ids import new_batch_id
from shared.ledger import claims
from shared.storage.mongo import Db
from tests.support.accounts import bearer, make_key
from tests.support.ledger import commit_new_batch


def _is_untouched(db: Db, batch_id: str) -> bool:
    batch = db.batches.find_one({"_id": batch_id})
    assert batch is not None
    return "cancelling" not in batch and "cancelled_by" not in batch and db.images.distinct("status", {"batch_id": batch_id}) == ["queued"]


@pytest.mark.parametrize(
    ("query", "request_body", "status", "code", "pointers"),
    [
        ("", {"json": {"only": "failed"}}, 422, "invalid", ["/only"]),
        ("", {"json": {"a": 1, "b": None}}, 422, "invalid", ["/a", "/b"]),
        ("", {"json": []}, 422, "invalid", [""]),
        ("", {"json": "all"}, 422, "invalid", [""]),
        ("", {"data": b"null", "content_type": "application/json"}, 422, "invalid", [""]),
        ("", {"data": b"{", "content_type": "application/json"}, 400, "malformed_json", []),
        ("", {"data": b'{"a": ' + b"9" * 2_000_000 + b"}", "content_type": "application/json"}, 413, "body_too_large", []),
        ("", {"data": {"only": "all"}}, 415, "unsupported_media_type", []),
        ("", {"data": b"{}", "content_type": "text/plain"}, 415, "unsupported_media_type", []),
        ("?wait=30", {"json": {}}, 422, "invalid", ["/wait"]),
        ("?only=failed&only=all", {}, 422, "invalid", ["/only"]),
    ],
    ids=["member", "members", "list", "text", "null", "no-json", "large", "form", "plain-text", "parameter", "repeated-parameter"],
)
def test_a_bad_request_cancels_nothing(web: FlaskClient, db: Db, query: str, request_body: dict[str, Any], status: int, code: str, pointers: list[str]) -> None:
    batch_id = commit_new_batch(db, 2)
    refused = web.post(f"/image_batches/{batch_id}/cancel{query}", **request_body)
    problem = refused.get_json()
    assert (refused.status_code, problem["code"]) == (status, code)
    assert [error["pointer"] for error in problem.get("errors", [])] == pointers
    assert _is_untouched(db, batch_id)
    assert db.audit_events.count_documents({}) == 0


def test_a_batch_with_an_image_of_a_foreign_store_is_not_cancelled(closed_web: FlaskClient, db: Db) -> None:
    mixed, south, north = (commit_new_batch(db, store=stores) for stores in (["north", "south"], ["south"], ["north"]))
    headers = bearer(make_key(db, "uploader", ["north"]))
    for batch_id in (mixed, south):
        refused = closed_web.post(f"/image_batches/{batch_id}/cancel", headers=headers)
        assert (refused.status_code, refused.get_json()["code"]) == (403, "foreign_store")
        assert _is_untouched(db, batch_id)
    for text in (new_batch_id(), north.upper(), f"{north}0000", "nonsense"):
        refused = closed_web.post(f"/image_batches/{text}/cancel", headers=headers)
        assert (refused.status_code, refused.get_json()["code"]) == (404, "not_found")
    refused = closed_web.post(f"/image_batches/{north}/cancel")
    assert (refused.status_code, refused.get_json()["code"]) == (401, "unauthorized")
    refused = closed_web.post(f"/image_batches/{north}/cancel", headers=bearer(make_key(db, "viewer", ["north"])))
    assert (refused.status_code, refused.get_json()["code"], refused.get_json()["scope"]) == (403, "missing_scope", "images:write")
    assert _is_untouched(db, north)
    assert closed_web.post(f"/image_batches/{north}/cancel", headers=headers).get_json() == {"cancelled": 1, "running": 0}
    (event,) = db.audit_events.find({"type": "batch.cancelled"})
    assert (event["target"], event["details"]) == (f"batch:{north}", {"images": 1})


@pytest.mark.parametrize("body", [{}, {"json": {}}, {"data": b"", "content_type": "application/json"}], ids=["none", "empty-object", "empty-text"])
def test_while_access_is_open_everybody_but_pages_of_other_sites_can_cancel(web: FlaskClient, db: Db, body: dict[str, Any]) -> None:
    batch_id = commit_new_batch(db, 3)
    claims.claim(db, "w", 1, 60)
    refused = web.post(f"/image_batches/{batch_id}/cancel", headers={"Origin": "http://evil.example"}, **body)
    assert (refused.status_code, refused.get_json()["code"]) == (403, "foreign_origin")
    assert db.images.count_documents({"status": "queued"}) == 2
    response = web.post(f"/image_batches/{batch_id}/cancel", **body)
    assert (response.status_code, response.get_json()) == (202, {"cancelled": 2, "running": 1})
    assert web.post(f"/image_batches/{batch_id}/cancel", **body).get_json() == {"cancelled": 0, "running": 1}
    assert db.batches.find_one({"_id": batch_id})["cancelled_by"] is None  # type: ignore[index]


def test_a_reprocessing_is_refused_with_the_time_to_retry_while_the_batch_is_being_cancelled(web: FlaskClient, db: Db) -> None:
    batch_id = commit_new_batch(db, 2)
    claims.claim(db, "w", 1, 60)
    web.post(f"/image_batches/{batch_id}/cancel")
    refused = web.post(f"/image_batches/{batch_id}/reprocess", json={"only": "all"})
    assert (refused.status_code, refused.get_json()["code"], refused.headers["Retry-After"]) == (409, "batch_cancelling", "2")
    assert f"GET /image_batches/{batch_id}?wait=30" in refused.get_json()["detail"]
