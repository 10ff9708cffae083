"""How many requests a key, a user, and an address without valid credentials may make, and what the responses say about it."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared import settings
from shared.accounts import audit_log
from shared.storage.mongo import Db
from tests.support import rate_windows
from tests.support.accounts import ACCESS, bearer, by_cookie, make_cookie, make_key, make_token, make_user
from tests.support.structured_fields import parse_list
from tests.support.web_client import image_payload, make_client, open_services, post_batch
from web.http import rate_limits

RATES = settings.Rates(requests_per_minute=3, uploads_per_minute=0, address_per_minute=4)
WRONG = {"Authorization": "Bearer sfs_wrong"}
Make = Callable[..., FlaskClient]


@pytest.fixture(autouse=True)
def _freeze_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    rate_windows.freeze(monkeypatch)
    monkeypatch.setattr(audit_log, "utc_now", lambda: datetime(2036, 1, 1, 12))


@pytest.fixture(name="make")
def make_maker(db: Db, mongo: settings.Mongo, blobs_root: Path) -> Make:
    """Return a function that makes a client of an application whose access is on, by default without Redis."""

    def make(redis_url: str = "redis://127.0.0.1:1/0", **rates: int) -> FlaskClient:
        return make_client(mongo, blobs_root, redis_url, access=ACCESS, rates=RATES.model_copy(update=rates))

    return make


@pytest.fixture
def limited(make: Make) -> FlaskClient:
    return make()


def statuses(web: FlaskClient, path: str, count: int, address: str = "192.0.2.1", **sent: Any) -> list[int]:
    return [get(web, path, address, **sent).status_code for _ in range(count)]


def get(web: FlaskClient, path: str, address: str = "192.0.2.1", **sent: Any) -> TestResponse:
    return web.get(path, environ_base={"REMOTE_ADDR": address}, **sent)


def shown(response: TestResponse) -> tuple[str, int, int, int]:
    """Return the name of the one quota that a response shows, the quota, its window and what remains of it."""
    ((name, policy),) = parse_list(response.headers["RateLimit-Policy"])
    ((limit_name, limit),) = parse_list(response.headers["RateLimit"])
    assert name == limit_name
    assert 1 <= limit["t"] <= policy["w"]
    return name, policy["q"], policy["w"], limit["r"]


def test_each_key_has_its_own_quota_which_every_response_shows(limited: FlaskClient, db: Db) -> None:
    ada = make_user(db, "ada", "admin")
    first, second = (bearer(make_key(db, user=ada)) for _ in range(2))
    responses = [get(limited, path, headers=first) for path in ("/me", "/nowhere", "/users?x=1", "/me", "/me")]
    assert [response.status_code for response in responses] == [200, 404, 422, 429, 429]
    assert [shown(response) for response in responses] == [("key", 3, 60, left) for left in (2, 1, 0, 0, 0)]
    refused = responses[-1]
    assert refused.get_json()["code"] == "too_many_requests"
    ((_, limit),) = parse_list(refused.headers["RateLimit"])
    assert refused.headers["Retry-After"] == str(limit["t"])
    assert get(limited, "/me", headers=second).status_code == 200


def test_a_user_has_one_quota_in_all_sessions(limited: FlaskClient, db: Db) -> None:
    ada, ben = make_user(db, "ada"), make_user(db, "ben")
    sessions = [bearer(make_token(db, ada)) for _ in range(2)]
    assert [get(limited, "/me", headers=headers).status_code for headers in sessions * 2] == [200, 200, 200, 429]
    response = get(limited, "/me", headers=bearer(make_token(db, ben)))
    assert shown(response) == ("user", 3, 60, 2)


def test_a_flood_with_invalid_credentials_is_refused_and_locks_out_nobody_with_the_same_address(limited: FlaskClient, db: Db) -> None:
    key = bearer(make_key(db, "uploader"))
    responses = [get(limited, path, headers=sent) for path, sent in (("/me", WRONG), ("/nowhere", {}), ("/uploads/x", WRONG), ("/me", {}), ("/me", WRONG), ("/nowhere", {}))]
    assert [response.status_code for response in responses] == [401, 401, 401, 401, 429, 429]
    assert [shown(response) for response in responses] == [("unauthorized", 4, 60, left) for left in (3, 2, 1, 0, 0, 0)]
    assert "WWW-Authenticate" not in responses[-1].headers
    assert get(limited, "/me", headers=key).status_code == 200
    assert post_batch(limited, [image_payload()], **key).status_code == 202
    assert get(limited, "/docs").status_code == 200
    assert get(limited, "/me", "192.0.2.2", headers=WRONG).status_code == 401


def test_forbidden_requests_count_as_all_others_of_their_credentials(limited: FlaskClient, db: Db) -> None:
    viewer, cookie = bearer(make_key(db, "viewer")), by_cookie(make_cookie(db, make_user(db)), with_csrf_token=False)
    responses = [get(limited, "/metrics", headers=viewer) for _ in range(5)]
    assert [response.status_code for response in responses] == [403] * 3 + [429] * 2
    assert [shown(response) for response in responses] == [("key", 3, 60, left) for left in (2, 1, 0, 0, 0)]
    assert get(limited, "/me", headers=viewer).status_code == 429
    without_token = [limited.post("/api_keys", json={}, headers=cookie) for _ in range(4)]
    assert [response.status_code for response in without_token] == [403] * 3 + [429]
    assert [shown(response)[0] for response in without_token] == ["user"] * 4


def test_requests_from_pages_of_other_sites_have_the_quota_of_their_address(limited: FlaskClient, db: Db) -> None:
    key = bearer(make_key(db))
    foreign, address = {"Origin": "https://evil.example"}, {"REMOTE_ADDR": "192.0.2.1"}
    responses = [limited.post(path, headers=foreign | sent, environ_base=address) for path, sent in (("/login", {}), ("/nowhere", {}), ("/me", key), ("/login", WRONG), ("/login", {}))]
    assert [response.status_code for response in responses] == [403] * 4 + [429]
    assert [shown(response) for response in responses] == [("address", 4, 60, left) for left in (3, 2, 1, 0, 0)]
    assert get(limited, "/me", headers=key).status_code == 200
    assert get(limited, "/limits", "192.0.2.2").status_code == 200


def test_public_operations_have_a_quota_for_each_address(limited: FlaskClient, db: Db) -> None:
    assert statuses(limited, "/limits", 6) == [200] * 4 + [429] * 2
    assert shown(get(limited, "/docs")) == ("address", 4, 60, 0)
    assert statuses(limited, "/limits", 1, "192.0.2.2") == [200]
    assert get(limited, "/me", headers=bearer(make_key(db))).status_code == 200
    assert get(limited, "/me").status_code == 401


def test_all_addresses_of_an_ipv6_network_are_one_client(limited: FlaskClient) -> None:
    assert [get(limited, "/limits", f"2001:db8::{number}").status_code for number in range(5)] == [200] * 4 + [429]
    assert get(limited, "/limits", "2001:db8:0:1::1").status_code == 200


def test_a_failed_sign_in_counts_once(limited: FlaskClient, db: Db) -> None:
    make_user(db, "ada")
    address = {"REMOTE_ADDR": "192.0.2.1"}
    wrong = [limited.post("/login", json={"username": "ada", "password": "x"}, environ_base=address) for _ in range(5)]
    assert [response.status_code for response in wrong] == [401] * 4 + [429]
    assert statuses(limited, "/me", 5) == [401] * 4 + [429]


def test_a_valid_refresh_token_is_accepted_whatever_else_came_from_its_address(limited: FlaskClient, db: Db) -> None:
    make_user(db, "ada")
    signed_in = limited.post("/login", json={"username": "ada", "password": "correct horse battery staple"}, environ_base={"REMOTE_ADDR": "192.0.2.9"}).get_json()
    statuses(limited, "/limits", 9)
    statuses(limited, "/me", 9)
    address = {"REMOTE_ADDR": "192.0.2.1"}
    assert limited.post("/refresh", json={"refresh_token": "x"}, environ_base=address).status_code == 429
    assert limited.post("/refresh", json={"refresh_token": signed_in["refresh_token"]}, environ_base=address).status_code == 200


def test_probes_static_files_and_signed_urls_are_not_counted(limited: FlaskClient, db: Db) -> None:
    key = make_key(db)
    batch = post_batch(limited, [image_payload()], **bearer(key)).get_json()
    url = get(limited, f"/image_batches/{batch['batch_id']}", headers=bearer(key)).get_json()["images"][0]["url"].removeprefix("http://localhost")
    assert "signature=" in url
    for path, expected in (("/healthz", 200), ("/static/style.css", 200), (url, 200)):
        responses = [get(limited, path) for _ in range(6)]
        assert {response.status_code for response in responses} == {expected}, path
        assert not any("RateLimit" in response.headers for response in responses)
    assert {response.status_code for response in (get(limited, "/readyz") for _ in range(6))} <= {200, 503}
    assert statuses(limited, "/limits", 5) == [200] * 4 + [429]


def test_uploads_have_no_quota_by_default_and_one_of_their_own_on_request(make: Make, db: Db) -> None:
    key = bearer(make_key(db, "uploader"))
    limited = make()
    assert [post_batch(limited, [image_payload()], **key).status_code for _ in range(5)] == [202] * 5
    assert get(limited, "/me", headers=key).status_code == 200
    limited = make(uploads_per_minute=2)
    responses = [post_batch(limited, [image_payload()], **key) for _ in range(3)]
    assert [response.status_code for response in responses] == [202, 202, 429]
    assert [shown(response) for response in responses] == [("uploads", 2, 60, left) for left in (1, 0, 0)]
    assert statuses(limited, "/me", 4, headers=key) == [200, 200, 200, 429]


def test_zero_means_no_limit(make: Make, db: Db) -> None:
    limited = make(requests_per_minute=0, address_per_minute=0)
    responses = [get(limited, path, headers=sent) for path, sent in (("/me", bearer(make_key(db))), ("/limits", {}), ("/me", WRONG)) for _ in range(6)]
    assert [response.status_code for response in responses] == [200] * 12 + [401] * 6
    assert not any("RateLimit" in response.headers for response in responses)


def test_open_access_has_no_rates(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    web = make_client(mongo, blobs_root, rates=RATES)
    for path, sent, status in (("/limits", {}, 200), ("/me", {}, 200), ("/me", WRONG, 401)):
        responses = [get(web, path, headers=sent) for _ in range(6)]
        assert {response.status_code for response in responses} == {status}
        assert not any("RateLimit" in response.headers for response in responses)


def test_two_processes_share_the_quotas(make: Make, db: Db, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_TIMEOUT_S", 30.0)
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    processes = [make(redis_url) for _ in range(2)]
    key = bearer(make_key(db))
    assert [get(web, "/me", headers=key).status_code for web in processes * 2] == [200, 200, 200, 429]
    assert [get(web, "/me", headers=WRONG).status_code for web in processes * 3] == [401] * 4 + [429] * 2


def test_limited_requests_are_recorded_as_refusals_of_their_address_or_account(limited: FlaskClient, db: Db) -> None:
    key = make_key(db)
    statuses(limited, "/me", 7, headers=bearer(key))
    statuses(limited, "/me", 9, headers=WRONG)
    statuses(limited, "/limits", 6)
    open_services[-1].audit_log.flush()
    events = db.audit_events.find({"type": "request.refused"})
    found = {(event.get("actor"), event["details"]["code"], event["details"]["status"]): event["count"] for event in events}
    assert found == {
        (f"key:{key.split('_')[1]}", "too_many_requests", 429): 4,
        (None, "unauthorized", 401): 4,
        (None, "too_many_requests", 429): 5 + 2,
    }
