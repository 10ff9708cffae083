"""GET /audit: who may read it, its filters, and its pages."""

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient

from shared.accounts import audit_log
from shared.accounts.audit_events import Event
from shared.storage.mongo import Db
from tests.support.accounts import bearer, make_key
from tests.support.web_client import open_services

NOON = datetime(2036, 1, 1, 12)


def listed(web: FlaskClient, admin: dict[str, str], **parameters: Any) -> list[dict[str, Any]]:
    response = web.get(f"/audit?{urlencode(parameters)}", headers=admin)
    assert response.status_code == 200, response.text
    events: list[dict[str, Any]] = response.get_json()["events"]
    return events


def test_an_event_is_shown_with_all_its_members(closed_web: FlaskClient, admin: dict[str, str], db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "utc_now", lambda: NOON)
    log = open_services[-1].audit_log
    log.record(Event("user.changed", "key:k1", "user:1", "ada", "k1", "2001:db8::7", "r-1", "user:2", {"old": ["north"], "new": None}))
    (document,) = db.audit_events.find()
    assert listed(closed_web, admin) == [
        {
            "id": document["_id"], "type": "user.changed", "at": "2036-01-01T12:00:00Z", "last_at": "2036-01-01T12:00:00Z", "count": 1,
            "actor": "key:k1", "account": "user:1", "username": "ada", "key_id": "k1", "address": "2001:db8::7", "last_address": "2001:db8::7",
            "request_id": "r-1", "target": "user:2", "details": {"old": ["north"], "new": None},
        }
    ]  # fmt: skip
    shown = closed_web.get("/openapi.json").get_json()["components"]["schemas"]["AuditEvent"]
    assert set(listed(closed_web, admin)[0]) == set(shown["properties"]) == set(shown["required"])


def test_a_counted_event_has_its_last_time_and_address(closed_web: FlaskClient, admin: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_services[-1].audit_log
    for second in (1, 5):
        monkeypatch.setattr(audit_log, "utc_now", lambda second=second: NOON + timedelta(seconds=second))
        log.count(Event("request.refused", address=f"2001:db8::{second}", request_id=f"r-{second}", details={"code": "unauthorized"}))
    log.flush()
    (event,) = listed(closed_web, admin)
    assert (event["at"], event["last_at"], event["count"]) == ("2036-01-01T12:00:01Z", "2036-01-01T12:00:05Z", 2)
    assert (event["address"], event["last_address"], event["request_id"]) == ("2001:db8::1", "2001:db8::5", "r-1")
    assert event["actor"] is event["account"] is event["username"] is event["key_id"] is event["target"] is None


def test_pages_follow_each_other_newest_first(closed_web: FlaskClient, admin: dict[str, str]) -> None:
    log = open_services[-1].audit_log
    for number in range(7):
        log.record(Event("user.signed_in", target=f"user:{number}"))
    newest_first = [event["id"] for event in listed(closed_web, admin)]
    assert newest_first == sorted(newest_first, reverse=True)
    read: list[str] = []
    parameters: dict[str, Any] = {"per_page": 3, "type": "user.signed_in"}
    for expected in (3, 3, 1):
        page = closed_web.get(f"/audit?{urlencode(parameters)}", headers=admin).get_json()
        assert list(page) == ["events", "next_cursor"]
        assert len(page["events"]) == expected
        read += [event["id"] for event in page["events"]]
        parameters["cursor"] = page["next_cursor"]
    assert parameters["cursor"] is None
    assert read == newest_first


def test_filters_select_by_type_user_key_address_target_and_time(closed_web: FlaskClient, admin: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_services[-1].audit_log
    for number in range(4):
        monkeypatch.setattr(audit_log, "utc_now", lambda number=number: NOON + timedelta(hours=number))
        log.record(Event("api_key.created" if number % 2 else "user.changed", username="Zoë大" if number else "ada", key_id=f"k{number}", address=f"2001:db8:0:{number}::1", target=f"user:{number}"))

    def found(**parameters: Any) -> list[str]:
        return [event["target"][-1] for event in listed(closed_web, admin, **parameters)]

    assert found(type="api_key.created") == ["3", "1"]
    assert found(username="Zoë大") == ["3", "2", "1"]
    assert found(key_id="k2") == ["2"]
    assert found(address="2001:DB8:0:2:ffff::5") == found(address="2001:db8:0:2::/64") == ["2"]
    assert found(target="user:1") == ["1"]
    assert found(since="2036-01-01T13:00:00Z", until="2036-01-01T14:00:00Z") == ["2", "1"]
    assert found(type="user.changed", username="Zoë大", since=(NOON - datetime(1970, 1, 1)).total_seconds()) == ["2"]
    assert found(type="user.signed_in") == []


@pytest.mark.parametrize("name", ["username", "key_id", "target"])
@pytest.mark.parametrize("text", ['{"$gt": ""}', "$ne", "[$ne]", ".*", "username", "a'b\\"])
def test_operators_are_plain_text(closed_web: FlaskClient, admin: dict[str, str], name: str, text: str) -> None:
    log = open_services[-1].audit_log
    log.record(Event("user.changed", username="ada", key_id="k1", target="user:1"))
    assert listed(closed_web, admin, **{name: text}) == []
    log.record(Event("user.changed", **{name: text}))  # type: ignore[arg-type]  # one of three texts
    assert [event[name] for event in listed(closed_web, admin, **{name: text})] == [text]


@pytest.mark.parametrize(
    ("query", "pointer", "code"),
    [
        ("type=user.deleted", "/type", "bad_value"),
        ("type=", "/type", "empty"),
        ("username[$ne]=x", "/username[$ne]", "unknown_parameter"),
        ("username=a&username=b", "/username", "given_twice"),
        ("username=" + 201 * "x", "/username", "bad_value"),
        ("username=%00", "/username", "bad_value"),
        ("address=10.0.0", "/address", "bad_value"),
        ("address=example.com", "/address", "bad_value"),
        ("since=yesterday", "/since", "bad_value"),
        ("per_page=101", "/per_page", "bad_value"),
        ("cursor=newest", "/cursor", "bad_value"),
        ("page=2", "/page", "unknown_parameter"),
    ],
)
def test_bad_parameters_are_refused(closed_web: FlaskClient, admin: dict[str, str], query: str, pointer: str, code: str) -> None:
    response = closed_web.get(f"/audit?{query}", headers=admin)
    assert response.status_code == 422
    assert [(error["pointer"], error["code"]) for error in response.get_json()["errors"]] == [(pointer, code)]


def test_only_an_administrator_of_all_stores_reads_the_log(closed_web: FlaskClient, db: Db, admin: dict[str, str]) -> None:
    def refusal(headers: dict[str, str]) -> tuple[int, str]:
        response = closed_web.get("/audit", headers=headers)
        return response.status_code, response.get_json()["code"]

    assert refusal({}) == (401, "unauthorized")
    assert refusal({"Authorization": "Bearer nobody"}) == (401, "unauthorized")
    for key in (make_key(db, "viewer"), make_key(db, None, scopes=["images:write"])):
        assert refusal(bearer(key)) == (403, "missing_scope")
    assert refusal(bearer(make_key(db, "admin", ["north"]))) == (403, "all_stores_required")
    assert closed_web.get("/audit", headers=admin).status_code == 200


def test_the_log_can_be_read_while_access_is_open(web: FlaskClient) -> None:
    assert web.get("/audit").get_json() == {"events": [], "next_cursor": None}
