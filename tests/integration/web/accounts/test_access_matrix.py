"""Every operation of the OpenAPI document, with every role, every scope, and every kind of invalid credentials.

The table says who may use each operation. A new route fails this test until it is in the table.
"""

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared import settings
from shared.accounts import sessions
from shared.accounts.permissions import ROLES, SCOPES, Scope
from shared.accounts.signing_keys import FixedSigningKeys, open_signing_keys
from shared.accounts.tokens import TokenSigner
from shared.storage.mongo import Db
from tests.integration.shared.jobs.requesting import request_job
from tests.support import accounts
from tests.support.accounts import SIGNER, bearer, by_cookie, make_cookie, make_key, make_token, make_user
from tests.support.web_client import image_payload, make_client, post_batch

Operation = tuple[str, str]


class AnyOf(NamedTuple):
    """One of two scopes is enough. Without both, the first one is named."""

    first: Scope
    second: Scope


Needs = Scope | tuple[Scope, ...] | AnyOf | Literal["nothing", "credentials", "session", "admin if a key"]

TABLE: Final[dict[Operation, Needs]] = {
    ("POST", "/upload_image_batch"): "images:upload",
    ("GET", "/image_batches"): "images:read",
    ("GET", "/image_batches/{batch_id}"): "images:read",
    ("DELETE", "/image_batches/{batch_id}"): "images:write",
    ("POST", "/image_batches/{batch_id}/cancel"): "images:write",
    ("POST", "/image_batches/{batch_id}/reprocess"): "images:write",
    ("GET", "/image_batches/{batch_id}/receipt"): "images:read",
    ("POST", "/receipts/verify"): "images:read",
    ("GET", "/images"): "images:read",
    ("POST", "/images"): "images:upload",
    ("GET", "/images/{image_id}"): "images:read",
    ("PATCH", "/images/{image_id}"): "images:write",
    ("DELETE", "/images/{image_id}"): "images:write",
    ("GET", "/images/{image_id}/similar"): "images:read",
    ("GET", "/images/{image_id}/timeline"): "images:read",
    ("GET", "/images/{image_id}/annotations"): "images:read",
    ("PUT", "/images/{image_id}/annotations"): "tags:write",
    ("DELETE", "/images/{image_id}/annotations"): "tags:write",
    ("POST", "/images/{image_id}/annotations/accept"): ("tags:write", "images:read"),
    ("GET", "/uploads/{name}"): "images:read",
    ("GET", "/uploads/{image_id}/{variant}.jpg"): "images:read",
    ("GET", "/"): "images:read",
    ("GET", "/batches/{batch_id}"): "images:read",
    ("POST", "/img"): "images:read",
    ("GET", "/inspections/{inspection_id}"): "images:read",
    ("GET", "/pictures/{result_id}/{picture}.jpg"): "images:read",
    ("GET", "/metrics"): "metrics:read",
    ("GET", "/limits"): "nothing",
    ("GET", "/healthz"): "nothing",
    ("GET", "/readyz"): "nothing",
    ("GET", "/openapi.json"): "nothing",
    ("GET", "/docs"): "nothing",
    ("GET", "/signup"): "nothing",
    ("GET", "/login"): "nothing",
    ("GET", "/account"): "session",
    ("POST", "/signup"): "nothing",
    ("GET", "/reset_password"): "nothing",
    ("POST", "/login"): "nothing",
    ("POST", "/sessions"): "nothing",
    ("POST", "/refresh"): "nothing",
    ("POST", "/reset_password"): "nothing",
    ("POST", "/logout"): "session",
    ("GET", "/me"): "credentials",
    ("POST", "/me/password"): "session",
    ("GET", "/users"): "admin",
    ("PATCH", "/users/{username}"): "admin",
    ("POST", "/users/{username}/reset_password"): "admin",
    ("GET", "/invitations"): "admin",
    ("POST", "/invitations"): "admin",
    ("GET", "/api_keys"): "admin if a key",
    ("POST", "/api_keys"): "admin if a key",
    ("DELETE", "/api_keys/{key_id}"): "admin if a key",
    ("GET", "/audit"): "admin",
    ("GET", "/admin/queues"): "admin",
    ("POST", "/admin/queues/{queue_name}/pause"): "admin",
    ("POST", "/admin/queues/{queue_name}/resume"): "admin",
    ("GET", "/admin/workers"): "admin",
    ("POST", "/reprocess"): "images:write",
    ("GET", "/admin/dead-letters"): "admin",
    ("POST", "/admin/dead-letters/retry"): "admin",
    ("POST", "/images/tags"): "tags:write",
    ("GET", "/jobs"): "images:read",
    ("GET", "/jobs/{job_id}"): "images:read",
    ("POST", "/jobs/{job_id}/cancel"): AnyOf("tags:write", "images:write"),
    ("POST", "/jobs/{job_id}/undo"): "tags:write",
    ("GET", "/tags"): "images:read",
    ("POST", "/tags"): "tags:write",
    ("GET", "/tags/{tag_name}"): "images:read",
    ("PATCH", "/tags/{tag_name}"): "tags:write",
    ("DELETE", "/tags/{tag_name}"): "tags:write",
    ("GET", "/images/{image_id}/tags"): "images:read",
    ("PUT", "/images/{image_id}/tags"): "tags:write",
    ("POST", "/images/{image_id}/tags"): "tags:write",
    ("DELETE", "/images/{image_id}/tags"): "tags:write",
    ("DELETE", "/images/{image_id}/tags/{tag_name}"): "tags:write",
    ("GET", "/images/{image_id}/suggestions"): "images:read",
    ("POST", "/images/{image_id}/suggestions"): ("tags:write", "images:read"),
}
UNKNOWN: Final = {
    "batch_id": "0" * 32,
    "name": f"{'0' * 36}.jpg",
    "image_id": "0" * 36,
    "variant": "thumb",
    "inspection_id": "0" * 32,
    "result_id": "0" * 32,
    "picture": "original",
    "username": "nobody",
    "key_id": "0" * 16,
    "job_id": "0" * 32,
    "tag_name": "unknown",
    "queue_name": "unknown",
}
BODIES: Final[dict[Operation, Any]] = {
    ("POST", "/image_batches/{batch_id}/reprocess"): {"only": "all"},
    ("PUT", "/images/{image_id}/tags"): {"tags": []},
    ("POST", "/images/{image_id}/tags"): {"tags": []},
    ("DELETE", "/images/{image_id}/tags"): {"tags": []},
    ("PUT", "/images/{image_id}/annotations"): {"boxes": []},
}
"""The bodies of requests that are checked before the images that they name."""


def scopes_of(needs: Needs, *, is_key: bool) -> tuple[Any, ...]:
    """Return the scopes that an operation needs, in the order in which they are checked."""
    if needs == "admin if a key":
        return ("admin",) if is_key else ()
    if isinstance(needs, tuple):
        return needs
    return (needs,) if needs in SCOPES else ()


def lacks(needs: Needs, scopes: frozenset[Scope], *, is_key: bool) -> Scope | None:
    """Return the scope that is named if an operation is refused; None if it is permitted."""
    if isinstance(needs, AnyOf):
        return None if scopes.intersection(needs) else needs.first
    return next((scope for scope in scopes_of(needs, is_key=is_key) if scope not in scopes), None)


@pytest.fixture
def closed_web(mongo: settings.Mongo, blobs_root: Path) -> FlaskClient:
    """Return a client whose requests are not counted, because some tests send every operation with all kinds of credentials."""
    return make_client(mongo, blobs_root, access=accounts.ACCESS, rates=settings.Rates(requests_per_minute=0, address_per_minute=0))


@pytest.fixture(name="send")
def make_sender(closed_web: FlaskClient) -> Callable[..., TestResponse]:
    """Return a function that sends a request of an operation, with unknown ids and an empty body.

    Its parameter ``way`` is the function that returns the headers for the credentials.
    """

    def send(operation: Operation, credentials: str | None = None, way: Callable[[str], dict[str, str]] = bearer, **ids: str) -> TestResponse:
        method, path = operation
        headers = {"Accept": "application/json"} | (way(credentials) if credentials else {})
        body: dict[str, Any] = {"json": BODIES.get(operation, {})} if operation in BODIES or method not in {"GET", "DELETE", "HEAD"} else {}
        return closed_web.open(path.format(**(UNKNOWN | ids)), method=method, headers=headers, **body)

    return send


def test_the_table_contains_every_operation(closed_web: FlaskClient) -> None:
    paths = closed_web.get("/openapi.json").get_json()["paths"]
    assert {(method.upper(), path) for path, item in paths.items() for method in item} == set(TABLE)
    assert {name for path in paths for name in re.findall(r"{(\w+)}", path)} == set(UNKNOWN)


def test_without_credentials_only_public_operations_can_be_used(send: Callable[..., TestResponse]) -> None:
    for operation, needs in TABLE.items():
        response = send(operation)
        assert (response.status_code != 401) == (needs == "nothing"), operation
        if response.status_code == 401:
            assert (response.get_json()["code"], response.headers["WWW-Authenticate"]) == ("unauthorized", "Bearer")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_permits_exactly_the_operations_of_its_scopes(send: Callable[..., TestResponse], db: Db, role: Any) -> None:
    check_key(send, make_key(db, role), ROLES[role])


def test_a_scope_permits_exactly_its_operations(send: Callable[..., TestResponse], db: Db) -> None:
    for scope in SCOPES:
        check_key(send, make_key(db, None, scopes=[scope]), frozenset({scope}))


def check_key(send: Callable[..., TestResponse], key: str, scopes: frozenset[Scope]) -> None:
    for operation, needs in TABLE.items():
        response = send(operation, key)
        code = (response.get_json(silent=True) or {}).get("code")
        assert response.status_code != 401, operation
        if needs == "session":
            assert code == "session_required", operation
            continue
        scope = lacks(needs, scopes, is_key=True)
        if scope is None:
            assert code not in {"missing_scope", "session_required"}, operation
        else:
            assert (response.status_code, code, response.get_json()["scope"]) == (403, "missing_scope", scope), operation
            assert response.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{scope}"', operation


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("make", "way"), [(make_token, bearer), (make_cookie, by_cookie)], ids=["token", "cookie"])
def test_a_person_may_use_the_operations_of_the_role_and_manage_own_keys(
    send: Callable[..., TestResponse], db: Db, role: Any, make: Callable[..., str], way: Callable[[str], dict[str, str]]
) -> None:
    token = make(db, make_user(db, role=role))
    for operation, needs in TABLE.items():
        if needs == "session":
            continue  # these end the session
        response = send(operation, token, way)
        code = (response.get_json(silent=True) or {}).get("code")
        is_permitted = lacks(needs, ROLES[role], is_key=False) is None
        assert response.status_code != 401, operation
        assert (code == "missing_scope") == (not is_permitted), operation


def test_a_cookie_without_a_csrf_token_changes_nothing(send: Callable[..., TestResponse], db: Db) -> None:
    value = make_cookie(db, make_user(db, role="admin"))
    for operation, needs in TABLE.items():
        response = send(operation, value, partial(by_cookie, with_csrf_token=False))
        code = (response.get_json(silent=True) or {}).get("code")
        assert (code == "bad_csrf_token") == (operation[0] != "GET" and needs != "nothing"), operation
        assert response.status_code != 401, operation


def invalid_credentials(db: Db) -> Iterator[tuple[str, str]]:
    """Yield descriptions of invalid credentials, and the credentials."""
    user = make_user(db, role="admin")
    ended = make_token(db, user)
    db.sessions.delete_many({})
    yield "session that has ended", ended
    live = sessions.start(db, SIGNER, user)
    session_id = str((db.sessions.find_one({}) or {})["_id"])
    yield "expired token", TokenSigner(open_signing_keys(accounts.ACCESS), lambda: time.time() - 3600).issue_access(user.id, session_id)[0]
    yield "token of another key", TokenSigner(FixedSigningKeys({"test": b"x" * 40})).issue_access(user.id, session_id)[0]
    yield "token of another user", SIGNER.issue_access("0" * 32, session_id)[0]
    yield "refresh token", live.refresh_token
    yield "the other kind of token, of a session of the same kind", make_cookie(db, user)
    yield "cut token", live.access_token[:-1]
    deleted = make_key(db)
    db.api_keys.delete_one({"_id": deleted.split("_")[1]})
    yield "deleted key", deleted
    expired = make_key(db)
    db.api_keys.update_one({"_id": expired.split("_")[1]}, {"$set": {"expires_at": datetime.now(UTC) - timedelta(seconds=1)}})
    yield "expired key", expired
    key = make_key(db)
    yield "damaged key", f"{key[:-1]}{'0' if key[-1] != '0' else '1'}"
    yield "rubbish", "rubbish"
    yield "long rubbish", "x" * 1_000_000
    yield "NUL", f"{key}\0"
    yield "percent sign", f"{key}%00"


def test_invalid_credentials_are_refused_by_every_operation_that_needs_some(send: Callable[..., TestResponse], db: Db) -> None:
    for name, credentials in invalid_credentials(db):
        for operation, needs in TABLE.items():
            response = send(operation, credentials)
            assert "Traceback" not in response.text
            if needs == "nothing":
                assert response.status_code != 401, (name, operation)
            else:
                assert (response.status_code, response.get_json()["code"]) == (401, "unauthorized"), (name, operation)
                if len(credentials) < 4096:
                    assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"', (name, operation)


def invalid_cookies(db: Db) -> Iterator[tuple[str, str]]:
    """Yield descriptions of invalid session cookies, and their values."""
    user = make_user(db, "berta", role="admin")
    ended = make_cookie(db, user)
    db.sessions.delete_one({"user": user.id})
    yield "session that has ended", ended
    make_cookie(db, user)
    session_id = str((db.sessions.find_one({"user": user.id}) or {})["_id"])
    later = time.time() + 3600
    yield "expired cookie", SIGNER.issue_cookie(user.id, session_id, time.time() - 1)
    yield "cookie of another key", TokenSigner(FixedSigningKeys({"test": b"x" * 40})).issue_cookie(user.id, session_id, later)
    yield "cookie of an unknown key", TokenSigner(FixedSigningKeys({"foreign": b"x" * 40})).issue_cookie(user.id, session_id, later)
    yield "cookie of another user", SIGNER.issue_cookie("0" * 32, session_id, later)
    yield "access token", make_token(db, user)
    yield "refresh token", SIGNER.issue_refresh(user.id, session_id, 0, later)
    yield "cut cookie", SIGNER.issue_cookie(user.id, session_id, later)[:-1]
    yield "API key", make_key(db, user=user)
    yield "rubbish", "rubbish"
    yield "long rubbish", "x" * 1_000_000
    yield "nothing", ""
    yield "two cookies", "; shelfsight_session=".join(2 * [SIGNER.issue_cookie(user.id, session_id, later)])


def test_invalid_cookies_are_refused_by_every_operation_that_needs_credentials(send: Callable[..., TestResponse], db: Db) -> None:
    for name, value in invalid_cookies(db):
        for operation, needs in TABLE.items():
            response = send(operation, value, by_cookie) if value else send(operation, "-", lambda _: {"Cookie": "shelfsight_session="})
            if needs == "nothing":
                assert response.status_code != 401, (name, operation)
            else:
                assert (response.status_code, response.get_json()["code"]) == (401, "unauthorized"), (name, operation)
                assert response.headers["WWW-Authenticate"] == "Bearer", (name, operation)
            assert "Set-Cookie" not in response.headers, (name, operation)


def test_other_schemes_and_malformed_headers_are_refused(closed_web: FlaskClient, db: Db) -> None:
    key = make_key(db)
    for header in ("", "Bearer", "Bearer ", key, f"Basic {key}", f"Bearer {key}, Bearer {key}", f"Bearer {key} {key}", "Bearer \xe9\xff", f"Bearer\t{key}", f"Token {key}"):
        response = closed_web.get("/me", headers={"Authorization": header})
        assert response.status_code == 401, header
    assert closed_web.get("/me", headers={"Authorization": f"Basic {key}"}).headers["WWW-Authenticate"] == "Bearer"
    assert closed_web.get("/me", headers={"Authorization": f"bearer {key}"}).status_code == 200
    assert closed_web.get("/me", headers={"authorization": f"BEARER  {key}"}).status_code == 200
    assert closed_web.get("/me", headers={"X-Authorization": f"Bearer {key}", "Cookie": f"access_token={key}"}).status_code == 401
    assert closed_web.get(f"/me?access_token={key}").status_code == 401


def test_what_does_not_exist_is_only_told_to_those_with_credentials(send: Callable[..., TestResponse], db: Db) -> None:
    key = make_key(db, "viewer")
    for operation in (("GET", "/no/such/path"), ("PUT", "/image_batches"), ("GET", "/exports"), ("POST", "/webhooks")):
        assert send(operation).status_code == 401
        assert send(operation, key).status_code in {404, 405}
    assert send(("PUT", "/limits")).status_code == 405
    assert send(("GET", "/static/style.css")).status_code == 200
    assert send(("HEAD", "/image_batches")).status_code == 401
    assert send(("HEAD", "/image_batches"), key).status_code == 200
    assert send(("OPTIONS", "/image_batches")).status_code == 401
    assert send(("OPTIONS", "/image_batches"), key).status_code == 200


def test_in_a_foreign_store_nothing_is_read_and_nothing_is_changed(closed_web: FlaskClient, send: Callable[..., TestResponse], db: Db) -> None:
    created = post_batch(closed_web, [image_payload(store_name="north")], **bearer(make_key(db))).get_json()
    ids = {"batch_id": created["batch_id"], "image_id": created["images"][0]["id"], "name": f"{created['images'][0]['id']}.jpg"}
    foreign, own = make_key(db, "admin", ["south"]), make_key(db, "admin", ["north", "south"])
    for operation, needs in TABLE.items():
        if not any(f"{{{name}}}" in operation[1] for name in ids):
            continue
        response = send(operation, foreign, **ids)
        expected = (404, "not_found") if operation[0] == "GET" else (403, "foreign_store")
        assert {"images:read", "images:write", "tags:write"}.issuperset(scopes_of(needs, is_key=False)), operation
        assert (response.status_code, response.get_json()["code"]) == expected, operation
        assert response.get_json()["detail"] == send(operation, own).get_json()["detail"] or expected[0] == 403, operation
    assert send(("GET", "/image_batches"), foreign).get_json()["batches"] == []
    assert [batch["id"] for batch in send(("GET", "/image_batches"), own).get_json()["batches"]] == [created["batch_id"]]
    refused = post_batch(closed_web, [image_payload(store_name="north")], **bearer(foreign))
    assert (refused.status_code, refused.get_json()["code"]) == (403, "foreign_store")
    assert send(("DELETE", "/image_batches/{batch_id}"), own, **ids).status_code == 204


def test_a_job_in_foreign_stores_is_not_seen_and_not_changed(send: Callable[..., TestResponse], db: Db) -> None:
    user = make_user(db, "anna", role="admin")
    foreign, own = (make_key(db, "admin", stores, user=user) for stores in (["south"], ["north", "south"]))
    job_id = request_job(db, f"user:{user.id}", stores=frozenset({"north"}))["_id"]
    for operation in TABLE:
        if "{job_id}" in operation[1]:
            expected = (404, "not_found") if operation[0] == "GET" else (403, "foreign_store")
            response = send(operation, foreign, job_id=job_id)
            assert (response.status_code, response.get_json()["code"]) == expected, operation
    assert send(("GET", "/jobs"), foreign).get_json()["jobs"] == []
    assert [job["status"] for job in send(("GET", "/jobs"), own).get_json()["jobs"]] == ["queued"]
