"""What a request leaves in the security log: its event with who, what and from where, a count if it is refused, and no secrets."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from flask import Response, g
from flask.testing import FlaskClient

from shared.accounts import audit_log
from shared.storage.mongo import Db, Document
from tests.support.accounts import bearer, make_key, make_token, make_user
from tests.support.security_log import SecurityLog
from tests.support.web_client import image_payload, open_services, post_batch
from web import security_events

Flush = Callable[[], None]


@pytest.fixture(autouse=True)
def _one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all events happen at the same time, so that their counts are in one window."""
    monkeypatch.setattr(audit_log, "utc_now", lambda: datetime(2036, 1, 1, 12))


def stored(db: Db) -> list[Document]:
    return list(db.audit_events.find({}, {"_id": 0, "at": 0, "last_at": 0, "clients": 0}).sort("_id", 1))


def test_a_deletion_names_who_what_from_where_and_the_request(closed_web: FlaskClient, db: Db, lines: SecurityLog) -> None:
    ada = make_user(db, "ada", "uploader")
    key = make_key(db, "uploader", user=ada)
    batch_id = post_batch(closed_web, [image_payload()], **bearer(key)).get_json()["batch_id"]
    response = closed_web.delete(f"/image_batches/{batch_id}", headers=bearer(key) | {"X-Request-ID": "r-1"}, environ_base={"REMOTE_ADDR": "192.0.2.9"})
    assert response.status_code == 204
    key_id = key.split("_")[1]
    event = {
        "type": "batch.deleted", "count": 1, "actor": f"key:{key_id}", "account": f"user:{ada.id}", "username": "ada", "key_id": key_id, "address": "192.0.2.9",
        "request_id": "r-1", "target": f"batch:{batch_id}",
    }  # fmt: skip
    assert stored(db) == [event]
    assert [(line["message"], line["target"]) for line in lines.lines()] == [("batch.deleted", f"batch:{batch_id}")]
    assert closed_web.delete(f"/image_batches/{batch_id}", headers=bearer(key)).status_code == 404
    assert len(stored(db)) == 1


def test_refusals_without_credentials_are_counted_by_address(closed_web: FlaskClient, db: Db, flush: Flush, lines: SecurityLog) -> None:
    for number in range(300):
        response = closed_web.get(f"/image_batches/{number}" if number % 2 else f"/no/{number}", environ_base={"REMOTE_ADDR": f"192.0.2.{number % 10}"})
        assert response.status_code == 401
    flush()
    events = stored(db)
    assert {event["address"]: event["count"] for event in events} == {f"192.0.2.{number}": 30 for number in range(10)}
    assert len(events) == 10
    assert events[0]["details"].items() >= {"code": "unauthorized", "status": 401, "method": "GET"}.items()
    assert sum(line["count"] for line in lines.lines()) == 300
    assert len(lines.lines()) <= 20


def test_refusals_of_a_principal_are_counted_by_principal_code_and_route(closed_web: FlaskClient, db: Db, flush: Flush) -> None:
    viewer = make_user(db, "vivian", "viewer")
    headers = bearer(make_token(db, viewer))
    for _ in range(3):
        assert closed_web.get("/audit", headers=headers).status_code == 403
    assert closed_web.delete(f"/image_batches/{32 * '0'}", headers=headers).status_code == 403
    flush()
    (event,) = stored(db)
    assert (event["actor"], event["count"]) == (f"user:{viewer.id}", 4)
    assert event["details"] == {"code": "missing_scope", "status": 403, "method": "GET", "route": "/audit"}


def test_unknown_hosts_and_foreign_pages_are_refusals_with_the_name_that_was_sent(web: FlaskClient, db: Db, flush: Flush, lines: SecurityLog) -> None:
    for _ in range(3):
        assert web.get("/limits", headers={"Host": "evil.example"}).status_code == 421
        assert web.delete("/image_batches/x", headers={"Origin": "https://evil.example"}).status_code == 403
    flush()
    found = {event["details"]["code"]: (event["count"], event["details"].get("host"), event["details"].get("origin")) for event in stored(db)}
    assert found == {"misdirected_request": (3, "evil.example", None), "foreign_origin": (3, None, "https://evil.example")}
    assert len(lines.lines()) == 2


def test_other_answers_leave_nothing(closed_web: FlaskClient, db: Db, admin: dict[str, str], flush: Flush, lines: SecurityLog) -> None:
    for path, status in (("/limits", 200), ("/audit", 200), ("/no", 404), ("/audit?x=1", 422), (f"/image_batches/{32 * '0'}", 404)):
        assert closed_web.get(path, headers=admin).status_code == status
    assert open_services[-1].audit_log._thread is None
    flush()
    assert stored(db) == lines.lines() == []


def record_in_request(web: FlaskClient, status: int, *args: Any, **kwargs: Any) -> None:
    """Record an event in a request that is then answered with ``status``."""
    with web.application.test_request_context("/login", method="POST", environ_base={"REMOTE_ADDR": "192.0.2.1"}):
        g.request_id = "r-1"
        security_events.record(*args, **kwargs)
        web.application.process_response(Response(status=status))


def test_a_public_route_names_the_user_itself(closed_web: FlaskClient, db: Db) -> None:
    record_in_request(closed_web, 200, "user.signed_in", actor="user:1", username="ada")
    event = {"type": "user.signed_in", "count": 1, "actor": "user:1", "account": "user:1", "username": "ada", "address": "192.0.2.1", "request_id": "r-1"}
    assert stored(db) == [event]


def test_a_failed_sign_in_is_one_event_and_no_refusal_too(closed_web: FlaskClient, db: Db, flush: Flush) -> None:
    for _ in range(15):
        record_in_request(closed_web, 401, "sign_in.failed", target="user:1")
    flush()
    assert [(event["type"], event["target"], event["count"]) for event in stored(db)] == [("sign_in.failed", "user:1", 15)]


KEY_TEXT = f"sfs_{'a1' * 8}_{'Zz9' * 14}x0123abcd"
TOKEN_TEXT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
PASSWORD = "correct-horse-battery-staple"


def test_no_secret_of_a_request_reaches_a_line_or_a_document(closed_web: FlaskClient, db: Db, flush: Flush, lines: SecurityLog) -> None:
    for secret in (KEY_TEXT, TOKEN_TEXT, PASSWORD):
        for headers in ({"Authorization": f"Bearer {secret}"}, {"Authorization": f"Basic {secret}"}, {"Cookie": f"token={secret}"}):
            response = closed_web.post(f"/image_batches/{secret}?token={secret}", json={"password": secret}, headers=headers)
            assert response.status_code == 401
    for secret in (KEY_TEXT, TOKEN_TEXT):
        closed_web.get("/limits", headers={"X-Request-ID": secret, "Authorization": "Bearer x"})
        closed_web.delete("/image_batches/x", headers={"Origin": f"https://{secret}.example"})
        record_in_request(closed_web, 401, "sign_in.failed", username=secret)
    flush()
    events = list(db.audit_events.find())
    assert len(events) >= 4
    everything = f"{lines.text}{lines.json_stream.getvalue()}{events}"
    for secret in (KEY_TEXT, TOKEN_TEXT, PASSWORD, KEY_TEXT[-20:], TOKEN_TEXT.rpartition(".")[2]):
        assert secret not in everything


def test_a_hostile_name_cannot_forge_a_line(closed_web: FlaskClient, db: Db, flush: Flush, lines: SecurityLog) -> None:
    username = "vi\nvian\x1b[2J"  # no such user can be created over HTTP
    headers = bearer(make_token(db, make_user(db, username))) | {"X-Request-ID": "r\t2026-01-01 00:00:00,000 INFO web shelfsight.security: user.signed_in"}
    closed_web.get("/audit", headers=headers, environ_base={"REMOTE_ADDR": "192.0.2.1\n2026"})
    flush()
    assert [event["username"] for event in stored(db)] == [username]
    (text_line,) = (line for line in lines.text.splitlines() if "request.refused" in line)  # the counts of requests have lines, too, while Redis is away
    assert r'"username": "vi\nvian\u001b[2J"' in text_line
    assert "user.signed_in" not in text_line
    assert [line["username"] for line in lines.lines()] == [username]


def test_a_request_succeeds_although_its_event_cannot_be_stored(web: FlaskClient, db: Db, lines: SecurityLog) -> None:
    batch_id = post_batch(web, [image_payload()]).get_json()["batch_id"]
    db.command("collMod", "audit_events", validator={"type": "none"})
    assert web.delete(f"/image_batches/{batch_id}").status_code == 204
    assert [line["target"] for line in lines.lines()] == [f"batch:{batch_id}"]
    assert any("A security event cannot be stored" in line["message"] for line in lines.lines("shelfsight.error"))
