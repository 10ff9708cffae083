"""Reading and correcting one image."""

from datetime import datetime
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.catalog import bulk_tags, image_tags
from shared.storage.mongo import Db
from tests.support.accounts import bearer, make_key
from tests.support.ledger import process_all
from tests.support.web_client import image_payload, open_services, post_batch

EAN = [{"format": "EAN-13", "text": "4006381333931", "box": [0, 0, 1, 1]}]


def upload(web: FlaskClient, headers: dict[str, str] | None = None, **fields: Any) -> str:
    """Upload a batch with one image, and return the id of the image."""
    accepted = post_batch(web, [image_payload(**fields)], **(headers or {}))
    return str(accepted.get_json()["images"][0]["id"])


def test_an_image_is_that_of_its_batch(web: FlaskClient) -> None:
    image_id = upload(web, barcode="123", extra={"shelf": 7})
    response = web.get(f"/images/{image_id}")
    (listed,) = web.get(f"/image_batches/{image_id[:32]}").get_json()["images"]
    assert (response.status_code, response.get_json()) == (200, listed)
    assert response.headers["ETag"] == '"queued-0-0"'
    assert "work" not in response.get_json()


@pytest.mark.parametrize("path", ["/images/" + "0" * 36, "/images/nonsense", "/images/" + "A" * 36, "/images/%00"])
@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_an_unknown_image_is_404(web: FlaskClient, method: str, path: str) -> None:
    response = web.open(path, method=method, json={} if method == "PATCH" else None)
    assert (response.status_code, response.get_json(force=True)["code"]) == (404, "not_found")


def test_a_foreign_image_is_404_to_readers_and_403_to_writers(closed_web: FlaskClient, db: Db) -> None:
    image_id = upload(closed_web, bearer(make_key(db)))
    foreign = bearer(make_key(db, "admin", ["south"]))
    assert closed_web.get(f"/images/{image_id}", headers=foreign).status_code == 404
    refused = closed_web.patch(f"/images/{image_id}", json={"camera_id": "x"}, headers=foreign)
    assert (refused.status_code, refused.get_json(force=True)["code"]) == (403, "foreign_store")


def test_fields_are_corrected_and_the_etag_changes(web: FlaskClient) -> None:
    image_id = upload(web, barcode="123", filename="a.jpg", shelf=7)
    before = web.get(f"/images/{image_id}")
    extra = {"$set": {"a.b": 1}, "a.b": [{"$gt": ""}], "": None, "$": 2}
    wanted = {"timestamp": "2026-02-03T04:05:06+01:00", "camera_id": 8, "barcode": " 456 ", "extra": extra}
    response = web.patch(f"/images/{image_id}", json=wanted)
    changed = response.get_json()
    assert response.status_code == 200
    assert changed == before.get_json() | {
        "timestamp": "2026-02-03T03:05:06Z", "camera_id": "8", "barcode": "456", "extra": extra, "updated_at": changed["updated_at"],
    }  # fmt: skip
    assert changed["updated_at"] >= before.get_json()["updated_at"]
    assert response.headers["ETag"] != before.headers["ETag"]
    read = web.get(f"/images/{image_id}")
    assert (read.get_json(), read.headers["ETag"]) == (changed, response.headers["ETag"])


@pytest.mark.parametrize("nothing", [{}, {"barcode": "123"}, {"camera_id": 7, "timestamp": 1767225600}])
def test_a_change_to_the_present_values_changes_nothing(web: FlaskClient, db: Db, nothing: dict[str, Any]) -> None:
    image_id = upload(web, barcode="123")
    before = web.get(f"/images/{image_id}")
    response = web.patch(f"/images/{image_id}", json=nothing)
    assert (response.status_code, response.get_json(), response.headers["ETag"]) == (200, before.get_json(), before.headers["ETag"])
    open_services[-1].audit_log.flush()
    assert db.audit_events.count_documents({"type": "image.changed"}) == 0


@pytest.mark.parametrize("barcode", [None, "", "  "])
def test_a_barcode_can_be_removed(web: FlaskClient, barcode: str | None) -> None:
    image_id = upload(web, barcode="123")
    assert web.patch(f"/images/{image_id}", json={"barcode": barcode}).get_json()["barcode"] is None


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("timestamp", "yesterday", "bad_timestamp"), ("timestamp", None, "bad_timestamp"), ("store_name", "", "blank"), ("store_name", None, "wrong_type"),
        ("camera_id", "x" * 201, "too_long"), ("camera_id", None, "wrong_type"), ("camera_id", True, "wrong_type"), ("barcode", 5, "wrong_type"), ("barcode", "a\0b", "bad_text"),
        ("barcode", "9" * 65, "too_long"), ("extra", [], "wrong_type"), ("extra", None, "wrong_type"), ("extra", {"a": "x" * 4096}, "extra_too_large"),
        ("extra", {"a\0": 1}, "bad_extra"), ("extra", {"n": 2**64}, "bad_extra"), ("extra", {"$ref": 1, "$id": 2}, "bad_extra"),
        ("id", "0" * 36, "unknown_field"), ("status", "done", "unknown_field"), ("filename", "a", "unknown_field"), ("tags", [], "unknown_field"),
    ],
)  # fmt: skip
def test_an_invalid_field_is_422_and_changes_nothing(web: FlaskClient, field: str, value: Any, code: str) -> None:
    image_id = upload(web)
    before = web.get(f"/images/{image_id}")
    response = web.patch(f"/images/{image_id}", json={"barcode": "1", field: value})
    problem = response.get_json(force=True)
    assert (response.status_code, problem["code"]) == (422, "invalid")
    assert [(error["pointer"], error["code"]) for error in problem["errors"]] == [(f"/{field}", code)]
    assert web.get(f"/images/{image_id}").get_json() == before.get_json()


@pytest.mark.parametrize(("body", "status"), [(b"[]", 422), (b"null", 422), (b"{", 400), (b'{"extra": {"a": NaN}}', 400), (b'{"barcode": "\xff"}', 400)])
def test_a_body_that_is_no_object_is_refused(web: FlaskClient, body: bytes, status: int) -> None:
    assert web.patch(f"/images/{upload(web)}", data=body, content_type="application/json").status_code == status


def test_a_change_with_the_etag_of_an_earlier_version_is_412(web: FlaskClient) -> None:
    image_id = upload(web)
    first = web.get(f"/images/{image_id}").headers["ETag"]
    second = web.patch(f"/images/{image_id}", json={"camera_id": "a"}, headers={"If-Match": first}).headers["ETag"]
    refused = web.patch(f"/images/{image_id}", json={"camera_id": "b"}, headers={"If-Match": first})
    assert (refused.status_code, refused.get_json(force=True)["code"]) == (412, "precondition_failed")
    assert web.get(f"/images/{image_id}").get_json()["camera_id"] == "a"
    # nginx makes an ETag weak when it compresses the response
    for header in (f'"other", W/{second}', "*"):
        assert web.patch(f"/images/{image_id}", json={"camera_id": "c"}, headers={"If-Match": header}).status_code == 200


def test_the_etag_changes_with_the_result(web: FlaskClient, db: Db) -> None:
    image_id = upload(web)
    first = web.get(f"/images/{image_id}").headers["ETag"]
    open_services[-1].wakeup_thread.close()
    process_all(db)
    assert web.patch(f"/images/{image_id}", json={"camera_id": "a"}, headers={"If-Match": first}).status_code == 412


def test_a_corrected_barcode_of_a_done_image_is_compared_again(web: FlaskClient, db: Db) -> None:
    image_id = upload(web, barcode="5901234123457")
    db.images.update_one({"_id": image_id}, {"$set": {"status": "done", "barcodes": EAN, "barcode_check": "mismatch"}})
    checks = [
        web.patch(f"/images/{image_id}", json={"barcode": barcode}).get_json()["barcode_check"]
        for barcode in ("4006381333931", None, "EAN 4006381333931", "5901234123457")
    ]
    assert checks == ["match", "not_declared", "match", "mismatch"]


def test_a_correction_is_in_the_security_log(web: FlaskClient, db: Db) -> None:
    image_id = upload(web, barcode="123")
    web.patch(f"/images/{image_id}", json={"barcode": "456", "camera_id": 7, "extra": {"a": 1}})
    open_services[-1].audit_log.flush()
    (event,) = db.audit_events.find({"type": "image.changed"})
    assert (event["target"], event["details"]) == (f"image:{image_id}", {"fields": ["barcode", "extra"]})


def test_who_may_not_read_images_changes_one_and_is_shown_nothing_of_it(closed_web: FlaskClient, db: Db) -> None:
    image_id = upload(closed_web, bearer(make_key(db)))
    writer = bearer(make_key(db, None, scopes=["images:write"]))
    reader = bearer(make_key(db, None, scopes=["images:write", "images:read"]))
    response = closed_web.patch(f"/images/{image_id}", json={"camera_id": "x"}, headers=writer)
    assert (response.status_code, response.data) == (204, b"")
    read = closed_web.get(f"/images/{image_id}", headers=reader)
    assert (read.get_json()["camera_id"], read.headers["ETag"]) == ("x", response.headers["ETag"])
    again = closed_web.patch(f"/images/{image_id}", json={"camera_id": "x"}, headers=reader | {"If-Match": response.headers["ETag"]})
    assert (again.status_code, again.get_json()) == (200, read.get_json())


def test_the_time_of_a_change_is_that_of_the_database(web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers use this clock, too. With the clock of the web host, a later change could have an earlier time."""
    image_id = upload(web)
    monkeypatch.setattr(image_tags, "utc_now", lambda: datetime(2001, 1, 1))
    monkeypatch.setattr(bulk_tags, "utc_now", lambda: datetime(2001, 1, 1))
    before = db.command("hello")["localTime"].replace(tzinfo=None)
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("PATCH", f"/images/{image_id}", {"camera_id": "x"}),
        ("PUT", f"/images/{image_id}/tags", {"tags": ["a"]}),
        ("POST", "/images/tags", {"ids": [image_id], "add": ["b"]}),
    ]
    for method, path, body in requests:
        assert web.open(path, method=method, json=body).status_code == 200
        image = db.images.find_one({"_id": image_id}) or {}
        assert before <= image["updated_at"]
        before = image["updated_at"]
    assert image["revision"] == 3


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_the_path_of_many_images_is_none_of_an_image(web: FlaskClient, method: str) -> None:
    refused = web.open("/images/tags", method=method)
    assert (refused.status_code, refused.get_json()["code"]) == (405, "method_not_allowed")
    assert "POST" in refused.headers["Allow"]
