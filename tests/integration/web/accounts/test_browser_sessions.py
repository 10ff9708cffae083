"""People sign in with a browser: what its cookie permits, what it does not, and when it ends."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared import settings
from shared.accounts import sessions, users
from shared.accounts.csrf_tokens import CsrfTokens
from shared.accounts.permissions import OPEN
from shared.accounts.signing_keys import FixedSigningKeys
from shared.accounts.users import Change
from shared.storage.mongo import Db
from tests.support import accounts, web_client
from tests.support.accounts import (
    CSRF_TOKENS,
    PASSWORD,
    SIGNER,
    bearer,
    by_cookie,
    make_cookie,
    make_key,
    make_token,
    make_user,
)
from tests.support.web_client import image_payload, post_batch

HTML: Final = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
HTTPS: Final = "https://localhost"
OTHER_PASSWORD: Final = "twelve tired green kettles"


@pytest.fixture(name="browser")
def make_browser(closed_web: FlaskClient) -> FlaskClient:
    """Return a client of the same application that keeps cookies."""
    return closed_web.application.test_client()


def sign_in(web: FlaskClient, base_url: str = "http://localhost", password: str = PASSWORD) -> TestResponse:
    response = web.post("/sessions", json={"username": "anna", "password": password}, base_url=base_url)
    assert (response.status_code, response.get_data()) == (204, b"")
    return response


def status(web: FlaskClient, value: str) -> int:
    """Return the status of a request with a cookie, after what was known of its session has been forgotten."""
    authenticator = web.application.extensions["shelfsight"].authenticator
    authenticator._entries.clear()
    authenticator._refused.clear()
    return web.get("/me", headers=by_cookie(value)).status_code


def code(response: TestResponse) -> tuple[int, str]:
    return response.status_code, (response.get_json(silent=True) or {}).get("code", "")


def attributes(response: TestResponse) -> tuple[str, set[str]]:
    """Return the name of the cookie that a response sets, and its attributes."""
    (header,) = response.headers.getlist("Set-Cookie")
    first, *rest = header.split("; ")
    return first.partition("=")[0], set(rest)


def test_the_cookie_is_out_of_the_reach_of_scripts_and_of_other_sites(closed_web: FlaskClient, db: Db) -> None:
    make_user(db)
    response = sign_in(closed_web)
    name, found = attributes(response)
    assert name == "shelfsight_session"
    assert {part for part in found if not part.startswith("Expires")} == {"HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=2592000"}
    assert response.headers["Cache-Control"] == "no-store"
    name, found = attributes(sign_in(closed_web, HTTPS))
    assert name == "__Host-shelfsight_session"
    assert {part for part in found if not part.startswith("Expires")} == {"Secure", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=2592000"}
    assert PASSWORD not in response.headers["Set-Cookie"]


def test_who_has_signed_in_gets_json_and_pages(browser: FlaskClient, db: Db) -> None:
    make_user(db)
    assert browser.get("/me").status_code == 401
    sign_in(browser)
    assert browser.get("/me").get_json()["username"] == "anna"
    assert "<bdi>anna</bdi>" in browser.get("/", headers=HTML).text
    assert browser.get("/image_batches").status_code == 200


def test_a_sign_in_takes_json_only(closed_web: FlaskClient, db: Db) -> None:
    make_user(db)
    form = closed_web.post("/sessions", data={"username": "anna", "password": PASSWORD})
    assert code(form) == (415, "unsupported_media_type")
    foreign = closed_web.post("/sessions", json={"username": "anna", "password": PASSWORD}, headers={"Origin": "https://evil.example"})
    assert code(foreign) == (403, "foreign_origin")
    assert db.sessions.count_documents({}) == 0


def test_under_https_only_the_cookie_with_the_prefix_counts_and_without_https_only_the_other(closed_web: FlaskClient, db: Db) -> None:
    value = make_cookie(db, make_user(db))
    for base_url, name, expected in (
        (HTTPS, "__Host-shelfsight_session", 200),
        (HTTPS, "shelfsight_session", 401),
        ("http://localhost", "shelfsight_session", 200),
        ("http://localhost", "__Host-shelfsight_session", 401),
    ):
        response = closed_web.get("/me", headers={"Cookie": f"{name}={value}"}, base_url=base_url)
        assert response.status_code == expected, (base_url, name)
        assert "Set-Cookie" not in response.headers
    both = {"Cookie": f"shelfsight_session=rubbish; __Host-shelfsight_session={value}"}
    assert closed_web.get("/me", headers=both, base_url=HTTPS).status_code == 200
    refused = closed_web.get("/me", headers={"Cookie": "__Host-shelfsight_session=rubbish"} | HTML, base_url=HTTPS)
    name, found = attributes(refused)
    assert (refused.status_code, name) == (401, "__Host-shelfsight_session")
    assert {"Secure", "Path=/", "Max-Age=0"} <= found


def test_a_header_comes_before_the_cookie(closed_web: FlaskClient, db: Db) -> None:
    anna, berta = make_user(db), make_user(db, "berta")
    value = make_cookie(db, anna)
    both = closed_web.get("/me", headers=by_cookie(value) | bearer(make_token(db, berta)))
    assert both.get_json()["username"] == "berta"
    invalid = closed_web.get("/me", headers=by_cookie(value) | {"Authorization": "Bearer rubbish"})
    assert code(invalid) == (401, "unauthorized")
    assert "Set-Cookie" not in invalid.headers
    assert closed_web.get("/me", headers={"Cookie": "shelfsight_session=rubbish"} | bearer(make_key(db))).status_code == 200
    no_token = by_cookie(value, with_csrf_token=False) | bearer(make_token(db, berta))
    assert closed_web.post("/logout", headers=no_token).status_code == 204  # a header needs no CSRF token
    assert status(closed_web, value) == 200


@pytest.fixture(name="picture")
def upload_picture(closed_web: FlaskClient, db: Db) -> str:
    """Upload an image of the store "north", and return the signed path of its original, which is a JPEG."""
    post_batch(closed_web, [image_payload(store_name="north")], **bearer(make_key(db)))
    (shown,) = closed_web.get("/image_batches", headers=bearer(make_key(db))).get_json()["batches"][0]["images"]
    return str(shown["url"]).removeprefix("http://localhost")


def test_a_signature_comes_before_the_cookie_and_the_cookie_after_an_expired_signature(closed_web: FlaskClient, db: Db, picture: str) -> None:
    original, _, _ = picture.partition("?")
    expired = f"{original}?signature={'0' * 64}&expires=1700000000"
    north, south = make_cookie(db, make_user(db, stores=["north"])), make_cookie(db, make_user(db, "berta", stores=["south"]))
    assert closed_web.get(expired).status_code == 401
    opened = closed_web.get(expired, headers=by_cookie(north))
    assert (opened.status_code, opened.mimetype) == (200, "image/jpeg")
    assert opened.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert set(opened.vary) == {"Authorization", "Cookie"}
    assert opened.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert closed_web.get(expired, headers=by_cookie(south)).status_code == 404
    signed = closed_web.get(picture, headers={"Cookie": "shelfsight_session=rubbish"})
    assert (signed.status_code, set(signed.vary)) == (200, set())
    assert "Set-Cookie" not in signed.headers
    assert closed_web.get(picture, headers=by_cookie(south)).status_code == 200
    assert closed_web.get(original, headers=by_cookie(north)).status_code == 200


def test_public_routes_and_open_access_ignore_the_cookie(closed_web: FlaskClient, web: FlaskClient) -> None:
    rubbish = {"Cookie": "shelfsight_session=rubbish"}
    for client, paths in ((closed_web, ("/healthz", "/limits", "/docs", "/login")), (web, ("/", "/me", "/limits", "/image_batches"))):
        for path in paths:
            response = client.get(path, headers=rubbish)
            assert response.status_code == 200, path
            assert "Set-Cookie" not in response.headers
    assert web.get("/me", headers=rubbish).get_json()["username"] is None
    assert code(web.delete(f"/image_batches/{32 * '0'}", headers=rubbish)) == (404, "not_found")  # no CSRF token is needed


def test_sign_out_ends_the_session_on_the_server_and_deletes_the_cookie(closed_web: FlaskClient, db: Db) -> None:
    anna = make_user(db)
    first, second, third = (make_cookie(db, anna) for _ in range(3))
    response = closed_web.post("/logout", headers=by_cookie(first))
    assert (response.status_code, attributes(response)[0]) == (204, "shelfsight_session")
    assert "Max-Age=0" in attributes(response)[1]
    assert [status(closed_web, value) for value in (first, second, third)] == [401, 200, 200]
    other = sessions.start(db, SIGNER, anna)
    response = closed_web.post("/logout", json={"refresh_token": other.refresh_token}, headers=by_cookie(second))
    assert (response.status_code, "Set-Cookie" in response.headers) == (204, False)
    assert status(closed_web, second) == 200
    response = closed_web.post("/logout", json={"everywhere": True}, headers=by_cookie(second))
    assert (response.status_code, attributes(response)[0]) == (204, "shelfsight_session")
    assert [status(closed_web, value) for value in (second, third)] == [401, 401]
    assert db.sessions.count_documents({}) == 0


def test_disabling_and_a_new_password_end_the_sessions_of_browsers(closed_web: FlaskClient, db: Db) -> None:
    anna, berta = make_user(db), make_user(db, "berta")
    of_anna, of_berta = make_cookie(db, anna), make_cookie(db, berta)
    users.change(db, "anna", Change(disabled=True), OPEN.rights)
    sessions.change_password(db, berta, "another hash")
    assert [status(closed_web, value) for value in (of_anna, of_berta)] == [401, 401]
    users.change(db, "anna", Change(disabled=False), OPEN.rights)
    assert status(closed_web, of_anna) == 401


def test_a_browser_that_changes_the_password_gets_a_new_cookie_and_no_tokens(browser: FlaskClient, db: Db) -> None:
    anna = make_user(db)
    other = make_cookie(db, anna)
    sign_in(browser)
    old = browser.get_cookie("shelfsight_session")
    assert old is not None
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    response = browser.post("/me/password", json=change, headers={"X-CSRF-Token": by_cookie(old.value)["X-CSRF-Token"]})
    assert (response.status_code, response.get_data(), response.headers["Cache-Control"]) == (204, b"", "no-store")
    new = browser.get_cookie("shelfsight_session")
    assert new is not None
    assert [status(browser.application.test_client(use_cookies=False), value) for value in (old.value, other, new.value)] == [401, 401, 200]
    sign_in(browser, password=OTHER_PASSWORD)


def test_a_cookie_is_neither_an_access_token_nor_a_refresh_token(closed_web: FlaskClient, db: Db) -> None:
    value = make_cookie(db, make_user(db))
    assert closed_web.get("/me", headers=bearer(value)).status_code == 401
    assert closed_web.post("/refresh", json={"refresh_token": value}).status_code == 401
    assert status(closed_web, value) == 200


def refused_csrf_tokens(db: Db, session_id: str) -> Iterator[tuple[str, str]]:
    """Yield descriptions of CSRF tokens that do not belong to a session, and the tokens."""
    valid = CSRF_TOKENS.issue(session_id)
    other = SIGNER.read_cookie(make_cookie(db, make_user(db, "berta"))).session_id
    yield "of another session", CSRF_TOKENS.issue(other)
    yield "of another key", CsrfTokens(FixedSigningKeys({"test": b"x" * 40})).issue(session_id)
    yield "cut", valid[:-1]
    yield "twice", f"{valid},{valid}"
    yield "with another number", f"{32 * '0'}{valid[32:]}"
    yield "in upper case", valid.upper()
    yield "nothing", ""
    yield "rubbish", "rubbish"
    yield "long", 1_000_000 * "0"


def test_an_unsafe_request_with_the_cookie_needs_a_csrf_token_of_the_session(closed_web: FlaskClient, db: Db) -> None:
    value = make_cookie(db, make_user(db))
    session_id = SIGNER.read_cookie(value).session_id
    cookie = by_cookie(value, with_csrf_token=False)
    assert code(closed_web.post("/logout", headers=cookie)) == (403, "bad_csrf_token")
    for name, token in refused_csrf_tokens(db, session_id):
        assert code(closed_web.post("/logout", headers=cookie | {"X-CSRF-Token": token})) == (403, "bad_csrf_token"), name
    for method, path in (("POST", "/no"), ("DELETE", "/image_batches"), ("PUT", "/me")):
        assert code(closed_web.open(path, method=method, headers=cookie)) == (403, "bad_csrf_token")
    for method, path in (("GET", "/me"), ("HEAD", "/me"), ("OPTIONS", "/me")):
        assert closed_web.open(path, method=method, headers=cookie).status_code == 200
    assert status(closed_web, value) == 200
    assert closed_web.post("/logout", headers=by_cookie(value)).status_code == 204


def test_a_csrf_token_does_not_make_up_for_a_foreign_origin(closed_web: FlaskClient, db: Db) -> None:
    value = make_cookie(db, make_user(db))
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:9999"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site"}):
        assert code(closed_web.post("/logout", headers=by_cookie(value) | headers)) == (403, "foreign_origin"), headers
    own = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert code(closed_web.post("/logout", headers=by_cookie(value, with_csrf_token=False) | own)) == (403, "bad_csrf_token")
    assert closed_web.post("/logout", headers=by_cookie(value) | own).status_code == 204


def test_cookies_and_csrf_tokens_of_an_old_signing_key_stay_valid(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    value = make_cookie(db, make_user(db))
    headers = by_cookie(value)
    keys = {"new": accounts.SIGNING_KEYS["test"][::-1]} | accounts.SIGNING_KEYS
    rotated = web_client.make_client(mongo, blobs_root, access=settings.Access(access="on", signing_keys=json.dumps(keys)))
    page = rotated.get("/account", headers=headers | HTML).text
    assert SIGNER.read_cookie(value).session_id not in page
    assert rotated.post("/logout", headers=headers).status_code == 204


def test_bad_csrf_tokens_and_sign_ins_are_in_the_security_log(closed_web: FlaskClient, db: Db) -> None:
    anna = make_user(db)
    sign_in(closed_web)
    value = make_cookie(db, anna)
    closed_web.post("/logout", headers=by_cookie(value, with_csrf_token=False))
    closed_web.post("/logout", headers=by_cookie(value))
    closed_web.application.extensions["shelfsight"].audit_log.flush()
    events = {event["type"]: event for event in db.audit_events.find({})}
    assert {name: event["actor"] for name, event in events.items()} == dict.fromkeys(("user.signed_in", "request.refused", "user.signed_out"), f"user:{anna.id}")
    assert events["request.refused"]["details"] == {"code": "bad_csrf_token", "status": 403, "method": "POST", "route": "/logout"}


def test_what_depends_on_who_asks_is_in_no_cache(closed_web: FlaskClient, db: Db) -> None:
    headers = by_cookie(make_cookie(db, make_user(db)))
    for path, accept in (("/me", {}), ("/image_batches", {}), ("/no", {}), ("/", HTML), ("/account", HTML), ("/docs", HTML), ("/login", HTML)):
        for credentials in (headers, bearer(make_key(db)), {}):
            response = closed_web.get(path, headers=credentials | accept)
            assert response.headers["Cache-Control"] == "no-store", (path, response.status_code)
            assert {"Authorization", "Cookie"} <= set(response.vary), (path, response.status_code)
    limits = closed_web.get("/limits", headers=headers)
    assert ("Cache-Control" in limits.headers, set(limits.vary)) == (False, set())


def test_a_session_that_ends_during_a_wait_ends_the_wait(closed_web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = post_batch(closed_web, [image_payload()], **bearer(make_key(db))).get_json()["batch_id"]
    value = make_cookie(db, make_user(db))
    sleep = time.sleep

    def end_session(seconds: float) -> None:
        db.sessions.delete_many({})
        closed_web.application.extensions["shelfsight"].authenticator._entries.clear()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", end_session)
    response = closed_web.get(f"/image_batches/{batch_id}?wait=1", headers=by_cookie(value))
    assert code(response) == (401, "unauthorized")


def test_only_a_response_that_opens_a_page_deletes_a_refused_cookie(closed_web: FlaskClient) -> None:
    rubbish = {"Cookie": "shelfsight_session=rubbish"}
    for headers, is_deleted in (
        (HTML | {"Sec-Fetch-Mode": "navigate"}, True),
        (HTML, True),  # over plain HTTP, browsers do not say what a request is for
        (HTML | {"Sec-Fetch-Mode": "cors"}, False),  # a script
        ({"Accept": "application/json"}, False),
        ({"Accept": "image/avif,image/webp,*/*;q=0.8", "Sec-Fetch-Mode": "no-cors"}, False),
        ({}, False),
    ):
        refused = closed_web.get("/me", headers=rubbish | headers)
        assert (refused.status_code, "Set-Cookie" in refused.headers) == (401, is_deleted), headers
    assert "Set-Cookie" not in closed_web.post("/logout", headers=rubbish | HTML).headers


def test_signing_in_again_ends_the_session_whose_cookie_is_replaced(browser: FlaskClient, db: Db) -> None:
    anna = make_user(db)
    elsewhere = make_cookie(db, anna)
    sign_in(browser)
    old = browser.get_cookie("shelfsight_session")
    assert old is not None
    assert browser.post("/sessions", json={"username": "anna", "password": "wrong"}).status_code == 401
    assert db.sessions.count_documents({}) == 2  # a failed attempt ends nothing
    sign_in(browser)
    new = browser.get_cookie("shelfsight_session")
    assert new is not None
    assert [status(browser.application.test_client(use_cookies=False), value) for value in (old.value, elsewhere, new.value)] == [401, 200, 200]
