"""The answers to nginx about uploads whose bodies it has not received yet."""

import json
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared import settings, telemetry
from shared.storage.mongo import Db
from tests.support import rate_windows
from tests.support.accounts import ACCESS, bearer, make_key
from tests.support.web_client import image_payload, make_client, open_services, post_batch

CHECK = {"X-Upload-Check": "1", "Content-Type": "application/json"}
UPLOADS = ["/upload_image_batch", "/images", "/img"]


@pytest.fixture
def behind_nginx(db: Db, mongo: settings.Mongo, blobs_root: Path) -> FlaskClient:
    """Return the client of an application that trusts this client as a proxy."""
    return make_client(mongo, blobs_root, access=ACCESS, proxies='["127.0.0.1"]')


@pytest.mark.parametrize("path", UPLOADS)
def test_a_permitted_upload_is_not_begun(behind_nginx: FlaskClient, db: Db, path: str) -> None:
    answer = behind_nginx.post(path, headers=CHECK | bearer(make_key(db)))
    assert (answer.status_code, answer.data) == (204, b"")


def test_only_a_refused_check_is_logged_as_an_access(behind_nginx: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[int] = []
    monkeypatch.setattr(telemetry.access, "info", lambda *_, extra: logged.append(extra["data"]["status"]))
    behind_nginx.post("/img", headers=CHECK | bearer(make_key(db)))
    behind_nginx.post("/img", headers=CHECK)
    assert logged == [401]


def test_a_check_by_a_client_is_a_request_as_any_other(closed_web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[int] = []
    monkeypatch.setattr(telemetry.access, "info", lambda *_, extra: logged.append(extra["data"]["status"]))
    key = bearer(make_key(db))
    upload = closed_web.post("/upload_image_batch", headers=CHECK | key)
    assert upload.status_code not in {204, 403}
    assert "RateLimit" in closed_web.get("/me", headers=CHECK | key).headers
    assert logged == [upload.status_code, 200]


def test_a_check_is_possible_only_for_uploads(behind_nginx: FlaskClient, db: Db) -> None:
    key = bearer(make_key(db))
    assert behind_nginx.get("/me", headers=CHECK | key).status_code == 200
    assert behind_nginx.get("/me", headers=CHECK).status_code == 401


@pytest.mark.parametrize("path", UPLOADS)
@pytest.mark.parametrize("scope", [None, "metrics:read"])
def test_a_refusal_contains_the_response_that_the_upload_would_get(behind_nginx: FlaskClient, db: Db, path: str, scope: str | None) -> None:
    headers = {"X-Request-ID": "test"} | ({} if scope is None else bearer(make_key(db, None, scopes=["metrics:read"])))
    upload = behind_nginx.post(path, headers={"Content-Type": "application/json"} | headers)
    answer = behind_nginx.post(path, headers=CHECK | headers)
    assert (answer.status_code, answer.data) == (403, b"")
    refusal = json.loads(answer.headers["X-Refusal"])
    assert (refusal["status"], refusal["body"]) == (upload.status_code, upload.get_data(as_text=True))
    refusal["headers"].pop("RateLimit", None)  # it counts both requests
    assert refusal["headers"] == {name: value for name, value in upload.headers.items() if name not in {"X-Request-ID", "RateLimit"}}


def test_a_refusal_is_counted_with_its_real_status(behind_nginx: FlaskClient, db: Db) -> None:
    behind_nginx.post("/upload_image_batch", headers=CHECK)
    open_services[-1].audit_log.flush()
    (event,) = db.audit_events.find({"type": "request.refused"})
    assert (event["count"], event["details"]["status"], event["details"]["code"]) == (1, 401, "unauthorized")


def test_a_check_reads_the_rate_of_the_upload_without_counting(db: Db, mongo: settings.Mongo, blobs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rate_windows.freeze(monkeypatch)
    web = make_client(mongo, blobs_root, access=ACCESS, rates=settings.Rates(uploads_per_minute=2), proxies='["127.0.0.1"]')
    key = bearer(make_key(db, "uploader"))
    checks = []
    for _ in range(3):
        checks.append([web.post("/upload_image_batch", headers=CHECK | key) for _ in range(3)][-1])
        post_batch(web, [image_payload()], **key)
    assert [check.status_code for check in checks] == [204, 204, 403]
    refusal = json.loads(checks[-1].headers["X-Refusal"])
    upload = post_batch(web, [image_payload()], **key)
    assert (refusal["status"], json.loads(refusal["body"])["code"]) == (429, "too_many_requests")
    assert all(refusal["headers"][name] == upload.headers[name] for name in ("RateLimit", "RateLimit-Policy", "Retry-After"))


def test_refused_checks_count(db: Db, mongo: settings.Mongo, blobs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rate_windows.freeze(monkeypatch)
    web = make_client(mongo, blobs_root, access=ACCESS, rates=settings.Rates(requests_per_minute=2), proxies='["127.0.0.1"]')
    viewer = bearer(make_key(db, None, scopes=["metrics:read"]))
    refusals = [json.loads(web.post("/img", headers=CHECK | viewer).headers["X-Refusal"])["status"] for _ in range(4)]
    assert refusals == [403, 403, 429, 429]
