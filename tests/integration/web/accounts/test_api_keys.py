"""API keys have at most the rights of whoever makes them, and of the user to whom they belong, at every moment."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared.accounts import authenticator, users
from shared.accounts.authenticator import MAX_AGE_S
from shared.accounts.permissions import OPEN, ROLES, SCOPES
from shared.accounts.users import Change
from shared.storage.mongo import Db
from tests.integration.web.accounts.test_sign_in import expire_cache, sign_in
from tests.support.accounts import bearer, make_key, make_user
from tests.support.web_client import image_payload, post_batch
from web.batches import views
from web.http.request_body import RequestBody

NORTH = {"name": "camera", "role": "uploader", "stores": ["north"]}


def create(web: FlaskClient, credentials: str, **body: Any) -> TestResponse:
    return web.post("/api_keys", json=NORTH | body, headers=bearer(credentials))


def me(web: FlaskClient, credentials: str) -> TestResponse:
    expire_cache(web)
    return web.get("/me", headers=bearer(credentials))


def test_a_key_is_shown_once_and_works_at_once(closed_web: FlaskClient, db: Db) -> None:
    make_user(db, role="admin")
    token = sign_in(closed_web)["access_token"]
    created = create(closed_web, token)
    assert created.status_code == 201
    assert created.headers["Cache-Control"] == "no-store"
    key = created.get_json()["key"]
    assert key.startswith(f"{created.get_json()['prefix']}_")
    shown = me(closed_web, key).get_json()
    assert (shown["username"], shown["role"], shown["stores"]) == ("anna", "uploader", ["north"])
    assert shown["key"] == {"id": created.get_json()["id"], "name": "camera", "expires_at": None}
    listed = closed_web.get("/api_keys", headers=bearer(token))
    assert key not in listed.text
    assert [row["name"] for row in listed.get_json()["api_keys"]] == ["camera"]
    stored = db.api_keys.find_one({})
    assert key not in str(stored)


def test_a_key_with_all_scopes_has_what_an_administrator_has(closed_web: FlaskClient, db: Db) -> None:
    admin = make_key(db)
    key = create(closed_web, admin, role=None, scopes=list(SCOPES), stores=["*"]).get_json()["key"]
    assert me(closed_web, key).get_json()["role"] == "admin"
    assert me(closed_web, key).get_json()["scopes"] == list(SCOPES)


def test_either_a_role_or_scopes_must_be_given(closed_web: FlaskClient, db: Db) -> None:
    admin = make_key(db)
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    wrong: list[dict[str, Any]] = [
        {"role": None}, {"scopes": ["images:read"]}, {"role": "owner"}, {"role": None, "scopes": ["*"]}, {"role": None, "scopes": []},
        {"stores": None}, {"stores": "north"}, {"stores": [{"$gt": ""}]}, {"stores": [""]}, {"stores": ["a\0b"]},
        {"name": ""}, {"name": "a\nb"}, {"name": "x" * 101}, {"expires_at": past}, {"expires_at": "soon"}, {"expires_at": {"$gt": 0}}, {"user": "ben"},
    ]  # fmt: skip
    assert [(body, create(closed_web, admin, **body).status_code) for body in wrong] == [(body, 422) for body in wrong]
    assert db.api_keys.count_documents({}) == 1


def test_nobody_gives_more_than_they_have(closed_web: FlaskClient, db: Db) -> None:
    make_user(db, role="tagger", stores=["north", "south"])
    token = sign_in(closed_web)["access_token"]
    allowed = create(closed_web, token, role="viewer")
    assert (allowed.status_code, allowed.get_json()["username"]) == (201, "anna")
    for body in ({"role": "uploader"}, {"role": "viewer", "stores": ["*"]}, {"role": "viewer", "stores": ["west"]}, {"role": None, "scopes": ["admin"]}):
        refused = create(closed_web, token, **body)
        assert (refused.status_code, refused.get_json()["code"]) == (403, "exceeds_rights"), body


def test_a_key_manages_keys_only_with_the_scope_admin(closed_web: FlaskClient, db: Db) -> None:
    key = make_key(db, "uploader")
    for response in (
        create(closed_web, key, role="viewer"),
        closed_web.get("/api_keys", headers=bearer(key)),
        closed_web.delete("/api_keys/0123456789abcdef", headers=bearer(key)),
    ):
        assert (response.status_code, response.get_json()["code"], response.get_json()["scope"]) == (403, "missing_scope", "admin")
    made = create(closed_web, make_key(db, "admin", ["north"]))
    assert (made.status_code, made.get_json()["username"]) == (201, None)


def test_a_key_never_exceeds_its_user(closed_web: FlaskClient, db: Db) -> None:
    anna = make_user(db, role="admin")
    make_user(db, "root", "admin")
    key = make_key(db, user=anna)
    assert me(closed_web, key).get_json()["role"] == "admin"
    users.change(db, "anna", Change(role="tagger", stores=["north"]), OPEN.rights)
    demoted = me(closed_web, key).get_json()
    assert (demoted["role"], set(demoted["scopes"]), demoted["stores"]) == ("tagger", set(ROLES["tagger"]), ["north"])
    users.change(db, "anna", Change(disabled=True), OPEN.rights)
    assert me(closed_web, key).status_code == 401
    users.change(db, "anna", Change(disabled=False), OPEN.rights)
    assert me(closed_web, key).status_code == 200


def test_people_see_and_delete_their_own_keys_and_administrators_all_in_their_stores(closed_web: FlaskClient, db: Db) -> None:
    anna, ben = make_user(db, role="uploader", stores=["north"]), make_user(db, "ben", "uploader", ["south"])
    north, south = make_key(db, "uploader", ["north"], user=anna, name="north"), make_key(db, "uploader", ["south"], user=ben, name="south")
    make_key(db, name="everywhere")
    make_user(db, "chief", "admin", ["north"])
    make_user(db, "root", "admin")

    def names(username: str) -> set[str]:
        token = sign_in(closed_web, username)["access_token"]
        return {row["name"] for row in closed_web.get("/api_keys", headers=bearer(token)).get_json()["api_keys"]}

    assert names("anna") == names("chief") == {"north"}
    assert names("root") == {"north", "south", "everywhere"}
    token = sign_in(closed_web)["access_token"]
    assert closed_web.delete(f"/api_keys/{south.split('_')[1]}", headers=bearer(token)).status_code == 404
    assert closed_web.delete(f"/api_keys/{north.split('_')[1]}", headers=bearer(token)).status_code == 204
    assert [me(closed_web, key).status_code for key in (north, south)] == [401, 200]


def test_a_deleted_or_expired_key_is_refused_within_five_seconds(closed_web: FlaskClient, db: Db) -> None:
    assert MAX_AGE_S < 5
    key = make_key(db)
    assert closed_web.get("/me", headers=bearer(key)).status_code == 200
    entries = closed_web.application.extensions["shelfsight"].authenticator._entries
    key_id = key.split("_")[1]
    entry = entries[key_id]
    db.api_keys.delete_one({"_id": key_id})
    assert closed_web.get("/me", headers=bearer(key)).status_code == 200  # read less than MAX_AGE_S seconds ago
    entries[key_id] = entry._replace(valid_until=entry.valid_until - MAX_AGE_S)
    assert closed_web.get("/me", headers=bearer(key)).status_code == 401


def test_an_expired_key_is_refused_also_if_it_was_read_before(closed_web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    key = make_key(db)
    db.api_keys.update_one({}, {"$set": {"expires_at": datetime.now(UTC) + timedelta(hours=1)}})
    assert closed_web.get("/me", headers=bearer(key)).status_code == 200
    in_an_hour = datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1)
    monkeypatch.setattr(authenticator, "utc_now", lambda: in_an_hour)
    assert closed_web.get("/me", headers=bearer(key)).status_code == 401


def test_lists_are_read_page_by_page(closed_web: FlaskClient, db: Db) -> None:
    admin = make_key(db)
    for number in range(4):
        make_key(db, name=f"camera {number}")
    seen: list[str] = []
    query = "per_page=2"
    while True:
        page = closed_web.get(f"/api_keys?{query}", headers=bearer(admin)).get_json()
        seen += [row["id"] for row in page["api_keys"]]
        if page["next_cursor"] is None:
            break
        query = f"per_page=2&cursor={page['next_cursor']}"
    assert len(seen) == len(set(seen)) == 5
    for wrong in ("cursor=x", "per_page=0", "user=anna", "cursor[$gt]=a"):
        assert closed_web.get(f"/api_keys?{wrong}", headers=bearer(admin)).status_code == 422


@pytest.mark.usefixtures("db")
def test_a_key_of_open_mode_belongs_to_nobody(web: FlaskClient) -> None:
    made = web.post("/api_keys", json=NORTH)
    assert (made.status_code, made.get_json()["username"]) == (201, None)
    assert web.get("/me", headers=bearer(made.get_json()["key"])).get_json()["stores"] == ["north"]


def test_a_limited_administrator_manages_own_keys_with_more_stores_too(closed_web: FlaskClient, db: Db) -> None:
    chief = make_user(db, "chief", "admin", ["north"])
    wide = make_key(db, user=chief, name="wide")
    make_key(db, name="of nobody")
    token = sign_in(closed_web, "chief")["access_token"]
    listed = closed_web.get("/api_keys", headers=bearer(token)).get_json()["api_keys"]
    assert [(row["name"], row["created_by"]) for row in listed] == [("wide", "operator")]
    assert closed_web.delete(f"/api_keys/{wide.split('_')[1]}", headers=bearer(token)).status_code == 204
    key_of_nobody = make_key(db, "admin", ["north"])
    listed = closed_web.get("/api_keys", headers=bearer(key_of_nobody)).get_json()["api_keys"]
    assert [row["id"] for row in listed] == [key_of_nobody.split("_")[1]]


def test_a_request_that_waits_is_checked_again(closed_web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    created = post_batch(closed_web, [image_payload(store_name="north")], **bearer(make_key(db))).get_json()
    key = make_key(db, "viewer", ["north"])

    def revoke(_seconds: float) -> None:
        db.api_keys.delete_one({"_id": key.split("_")[1]})
        expire_cache(closed_web)

    monkeypatch.setattr(views, "_POLL_INTERVAL_S", 0)
    monkeypatch.setattr("web.batches.views.time.sleep", revoke)
    assert closed_web.get(f"/image_batches/{created['batch_id']}?wait=1", headers=bearer(key)).status_code == 401


def test_an_upload_is_checked_again_when_its_body_has_been_read(closed_web: FlaskClient, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    anna = make_user(db, role="uploader", stores=["north", "south"])
    key = make_key(db, "uploader", ["north", "south"], user=anna)
    read = RequestBody.read

    def read_slowly(self: RequestBody, limit: int) -> bytes:
        body = read(self, limit)
        users.change(db, "anna", Change(stores=["south"]), OPEN.rights)
        expire_cache(closed_web)
        return body

    monkeypatch.setattr(RequestBody, "read", read_slowly)
    refused = post_batch(closed_web, [image_payload(store_name="north")], **bearer(key))
    assert (refused.status_code, refused.get_json()["code"]) == (403, "foreign_store")
    assert db.batches.count_documents({}) == 0
