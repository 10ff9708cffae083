"""People sign up, sign in, refresh their tokens, sign out, and change their passwords."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import argon2
import pytest
from argon2.profiles import CHEAPEST
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared import settings
from shared.accounts import users
from shared.accounts.passwords import PasswordHasher
from shared.accounts.permissions import OPEN
from shared.accounts.users import Change
from shared.storage.mongo import Db
from tests.support import accounts, web_client
from tests.support.accounts import PASSWORD, bearer, make_key, make_user

OTHER_PASSWORD = "twelve tired green kettles"


def sign_in(web: FlaskClient, username: str = "anna", password: str = PASSWORD) -> dict[str, Any]:
    response = web.post("/login", json={"username": username, "password": password})
    assert response.status_code == 200, response.text
    body = response.get_json()
    assert isinstance(body, dict)
    return body


def expire_cache(web: FlaskClient) -> None:
    """Forget what the authenticator has read, as it does by itself after some seconds."""
    authenticator = web.application.extensions["shelfsight"].authenticator
    authenticator._entries.clear()
    authenticator._refused.clear()


def status(web: FlaskClient, token: str) -> int:
    expire_cache(web)
    return web.get("/me", headers=bearer(token)).status_code


def test_who_signs_up_is_a_viewer_without_stores(closed_web: FlaskClient) -> None:
    created = closed_web.post("/signup", json={"username": "Anna", "email": "anna@example.com", "password": PASSWORD})
    assert created.status_code == 201
    shown = created.get_json()
    assert (shown["username"], shown["role"], shown["stores"], shown["disabled"]) == ("Anna", "viewer", [], False)
    assert PASSWORD not in created.text
    token = sign_in(closed_web, "anna")["access_token"]
    me = closed_web.get("/me", headers=bearer(token)).get_json()
    assert me == {"username": "Anna", "role": "viewer", "scopes": ["images:read", "exports:read"], "stores": [], "key": None}


def test_a_taken_name_or_address_is_a_conflict_in_either_case(closed_web: FlaskClient) -> None:
    first = {"username": "anna", "email": "anna@example.com", "password": PASSWORD}
    assert closed_web.post("/signup", json=first).status_code == 201
    for changed in ({"username": "ANNA", "email": "b@example.com"}, {"username": "ben", "email": "Anna@Example.com"}):
        again = closed_web.post("/signup", json=first | changed)
        assert (again.status_code, again.get_json()["code"]) == (409, "already_exists")


def test_a_sign_up_with_an_invalid_or_unknown_member_is_refused(closed_web: FlaskClient) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"password": "short"}, "/password"),
        ({"password": "passwordpassword"}, "/password"),
        ({"password": None}, "/password"),
        ({"username": "a b"}, "/username"),
        ({"username": {"$ne": ""}}, "/username"),
        ({"username": "a@b"}, "/username"),
        ({"email": "nobody"}, "/email"),
        ({"email": ["a@b"]}, "/email"),
        ({"role": "admin"}, "/role"),
        ({"stores": ["*"]}, "/stores"),
    ]
    for changed, pointer in cases:
        body = {"username": "anna", "email": "anna@example.com", "password": PASSWORD} | changed
        refused = closed_web.post("/signup", json=body)
        assert (refused.status_code, [error["pointer"] for error in refused.get_json()["errors"]]) == (422, [pointer])


@pytest.mark.parametrize("mode", ["invited", "closed"])
def test_nobody_signs_up_where_it_is_closed(db: Db, mongo: settings.Mongo, blobs_root: Path, mode: str) -> None:
    access = settings.Access(access="on", signup=mode, signing_keys=json.dumps(accounts.SIGNING_KEYS))
    web = web_client.make_client(mongo, blobs_root, access=access)
    refused = web.post("/signup", json={"username": "anna", "email": "anna@example.com", "password": PASSWORD})
    assert (refused.status_code, refused.get_json()["code"]) == (403, "signup_closed")
    assert db.users.count_documents({}) == 0


def test_people_sign_in_by_name_or_address_as_json_or_as_a_form(closed_web: FlaskClient, db: Db) -> None:
    make_user(db, email="anna@example.com")
    ways: list[dict[str, Any]] = [
        {"json": {"username": "Anna", "password": PASSWORD}},
        {"json": {"email": "ANNA@example.com", "password": PASSWORD}},
        {"data": {"grant_type": "password", "username": "anna", "password": PASSWORD, "scope": ""}},
        {"data": {"username": "anna@example.com", "password": PASSWORD}},
    ]
    for way in ways:
        response = closed_web.post("/login", **way)
        assert response.status_code == 200
        assert (response.get_json()["token_type"], response.get_json()["expires_in"]) == ("bearer", 900)
        assert response.headers["Cache-Control"] == "no-store"


def test_a_sign_in_of_another_form_is_refused(closed_web: FlaskClient, db: Db) -> None:
    make_user(db)
    bodies: list[Any] = [
        {"username": "anna"},
        {"password": PASSWORD},
        {"username": "anna", "email": "anna@example.com", "password": PASSWORD},
        {"username": {"$gt": ""}, "password": PASSWORD},
        {"username": "anna", "password": {"$ne": None}},
        {"username": "anna", "password": PASSWORD, "role": "admin"},
        [],
    ]
    assert [closed_web.post("/login", json=body).status_code for body in bodies] == [422] * len(bodies)


@pytest.mark.parametrize("path", ["/login", "/sessions"])
def test_a_wrong_password_and_an_unknown_or_disabled_user_have_the_same_answer_and_cost(
    closed_web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    make_user(db)
    make_user(db, "ben")
    users.change(db, "ben", Change(disabled=True), OPEN.rights)
    calls: list[str] = []
    verify = argon2.PasswordHasher.verify

    def count(self: argon2.PasswordHasher, stored: str, password: str) -> Any:
        calls.append(stored)
        return verify(self, stored, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", count)
    answers = []
    for username, password in (("anna", "wrong"), ("carl", "wrong"), ("ben", "wrong"), ("ben", PASSWORD), ("b\0n", "wrong"), ("a@b", "wrong")):
        calls.clear()
        response = closed_web.post(path, json={"username": username, "password": password})
        assert "Set-Cookie" not in response.headers
        answers.append((response.status_code, response.get_json()["code"], response.get_json()["detail"], len(calls)))
    assert answers == [(401, "bad_credentials", answers[0][2], 1)] * len(answers)


def test_fifteen_wrong_passwords_at_once_are_throttled(closed_web: FlaskClient, db: Db) -> None:
    make_user(db)
    application = closed_web.application

    def attempt(number: int) -> TestResponse:
        path = "/login" if number % 2 else "/sessions"  # they are counted together
        return application.test_client().post(path, json={"username": "anna", "password": f"wrong {number}"})

    with ThreadPoolExecutor(15) as pool:
        responses = list(pool.map(attempt, range(15)))
    statuses = sorted(response.status_code for response in responses)
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= 10
    throttled = next(response for response in responses if response.status_code == 429)
    assert int(throttled.headers["Retry-After"]) >= 1
    assert attempt(16).status_code == 429
    assert closed_web.post("/login", json={"username": "anna", "password": PASSWORD}).status_code == 429


def test_the_throttle_does_not_tell_which_email_address_belongs_to_a_user(closed_web: FlaskClient, db: Db) -> None:
    make_user(db, "bob", email="bob@example.org")

    def attempt(**name: str) -> int:
        return closed_web.post("/login", json={**name, "password": "wrong"}).status_code

    assert [attempt(username="bob") for _ in range(11)] == [401] * 10 + [429]
    assert [attempt(email=email) for email in ("bob@example.org", "ben@example.org")] == [401, 401]
    assert [attempt(email="bob@example.org") for _ in range(10)] == [401] * 9 + [429]


def test_failures_are_forgotten_after_a_success(closed_web: FlaskClient, db: Db) -> None:
    make_user(db)
    for _ in range(3):
        for _ in range(8):
            assert closed_web.post("/login", json={"username": "anna", "password": "wrong"}).status_code == 401
        sign_in(closed_web)


def test_a_hash_with_old_parameters_is_replaced_at_the_next_sign_in(closed_web: FlaskClient, db: Db) -> None:
    old, new = (PasswordHasher(1, 30, replace(CHEAPEST, time_cost=time_cost)) for time_cost in (1, 2))
    user = make_user(db)
    services = closed_web.application.extensions["shelfsight"]
    for hasher, is_replaced in ((old, False), (new, True)):
        services.password_hasher = hasher
        sign_in(closed_web)
        stored = users.get(db, user.username).password_hash
        assert (stored != user.password_hash) == is_replaced
        assert stored is not None
        assert not hasher.needs_rehash(stored)
    sign_in(closed_web)


def test_a_refresh_token_is_used_once_and_a_second_use_ends_the_session(closed_web: FlaskClient, db: Db) -> None:
    make_user(db)
    first = sign_in(closed_web)
    other_session = sign_in(closed_web)
    second = closed_web.post("/refresh", json={"refresh_token": first["refresh_token"]}).get_json()
    assert second["refresh_token"] != first["refresh_token"]
    assert status(closed_web, second["access_token"]) == 200
    reused = closed_web.post("/refresh", json={"refresh_token": first["refresh_token"]})
    assert (reused.status_code, reused.get_json()["code"]) == (401, "unauthorized")
    assert status(closed_web, second["access_token"]) == 401
    assert closed_web.post("/refresh", json={"refresh_token": second["refresh_token"]}).status_code == 401
    assert status(closed_web, other_session["access_token"]) == 200


def test_of_concurrent_uses_of_a_refresh_token_at_most_one_succeeds(closed_web: FlaskClient, db: Db) -> None:
    make_user(db)
    token = sign_in(closed_web)["refresh_token"]
    application = closed_web.application
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: application.test_client().post("/refresh", json={"refresh_token": token}).status_code, range(8)))
    assert statuses.count(200) <= 1
    assert set(statuses) <= {200, 401}


def test_an_access_token_is_no_refresh_token_and_the_reverse(closed_web: FlaskClient, db: Db) -> None:
    make_user(db)
    tokens = sign_in(closed_web)
    assert closed_web.post("/refresh", json={"refresh_token": tokens["access_token"]}).status_code == 401
    assert status(closed_web, tokens["refresh_token"]) == 401


def test_who_signs_out_ends_one_session_or_all(closed_web: FlaskClient, db: Db) -> None:
    make_user(db)
    first, second, third = (sign_in(closed_web) for _ in range(3))
    assert closed_web.post("/logout", headers=bearer(first["access_token"])).status_code == 204
    assert status(closed_web, first["access_token"]) == 401
    assert closed_web.post("/refresh", json={"refresh_token": first["refresh_token"]}).status_code == 401
    assert closed_web.post("/logout", json={"refresh_token": third["refresh_token"]}, headers=bearer(second["access_token"])).status_code == 204
    assert status(closed_web, third["access_token"]) == 401
    fourth = sign_in(closed_web)
    assert closed_web.post("/logout", json={"everywhere": True}, headers=bearer(second["access_token"])).status_code == 204
    assert [status(closed_web, tokens["access_token"]) for tokens in (second, fourth)] == [401, 401]


def test_nobody_ends_the_session_of_somebody_else(closed_web: FlaskClient, db: Db) -> None:
    make_user(db)
    make_user(db, "ben")
    anna, ben = sign_in(closed_web), sign_in(closed_web, "ben")
    closed_web.post("/logout", json={"refresh_token": anna["refresh_token"]}, headers=bearer(ben["access_token"]))
    assert status(closed_web, anna["access_token"]) == 200


def test_a_new_password_ends_all_sessions_and_answers_with_a_new_one(closed_web: FlaskClient, db: Db) -> None:
    make_user(db)
    first, second = sign_in(closed_web), sign_in(closed_web)
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    wrong = closed_web.post("/me/password", json=change | {"current_password": "wrong"}, headers=bearer(first["access_token"]))
    assert (wrong.status_code, wrong.get_json()["code"]) == (403, "wrong_password")
    weak = closed_web.post("/me/password", json=change | {"new_password": "short"}, headers=bearer(first["access_token"]))
    assert (weak.status_code, weak.get_json()["errors"][0]["pointer"]) == (422, "/new_password")
    changed = closed_web.post("/me/password", json=change, headers=bearer(first["access_token"]))
    assert changed.status_code == 200
    assert [status(closed_web, tokens["access_token"]) for tokens in (first, second, changed.get_json())] == [401, 401, 200]
    assert closed_web.post("/login", json={"username": "anna", "password": PASSWORD}).status_code == 401
    sign_in(closed_web, password=OTHER_PASSWORD)


def test_an_api_key_has_no_session_and_no_password(closed_web: FlaskClient, db: Db) -> None:
    headers = bearer(make_key(db, user=make_user(db)))
    for path, body in (("/logout", {}), ("/me/password", {"current_password": PASSWORD, "new_password": OTHER_PASSWORD})):
        refused = closed_web.post(path, json=body, headers=headers)
        assert (refused.status_code, refused.get_json()["code"]) == (403, "session_required")


def test_while_access_is_open_everybody_is_an_administrator_without_a_name(web: FlaskClient) -> None:
    me = web.get("/me").get_json()
    assert (me["username"], me["role"], me["stores"], me["key"]) == (None, "admin", ["*"], None)


def test_while_access_is_open_credentials_count_nevertheless(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    web = web_client.make_client(mongo, blobs_root, access=settings.Access(signing_keys=json.dumps(accounts.SIGNING_KEYS)))
    make_user(db)
    token = sign_in(web)["access_token"]
    assert web.get("/me", headers=bearer(token)).get_json()["username"] == "anna"
    assert web.get("/me", headers=bearer(f"{token}x")).status_code == 401
    assert web.get("/healthz", headers=bearer("rubbish")).status_code == 401


def test_without_signing_keys_nobody_can_sign_in(web: FlaskClient, db: Db) -> None:
    make_user(db)
    refused = web.post("/login", json={"username": "anna", "password": PASSWORD})
    assert (refused.status_code, refused.get_json()["code"]) == (503, "signing_keys_missing")
