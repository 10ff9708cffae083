"""Administrators list and change users, invite new ones, and offer new passwords, but give nobody more than they have."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared import settings
from shared.accounts import users
from shared.accounts.permissions import OPEN
from shared.accounts.users import Change
from shared.errors import Conflict
from shared.storage.mongo import Db
from tests.integration.web.accounts.test_sign_in import OTHER_PASSWORD, expire_cache, sign_in, status
from tests.support import accounts, web_client
from tests.support.accounts import PASSWORD, bearer, make_key, make_user


def patch(web: FlaskClient, credentials: str, username: str, **body: Any) -> TestResponse:
    expire_cache(web)
    return web.patch(f"/users/{username}", json=body, headers=bearer(credentials))


def sign_up(web: FlaskClient, invitation: str, username: str = "newbie") -> TestResponse:
    return web.post("/signup", json={"username": username, "email": f"{username}@example.com", "password": PASSWORD, "invitation": invitation})


def test_a_change_of_rights_reaches_tokens_that_exist(closed_web: FlaskClient, db: Db) -> None:
    admin = make_key(db)
    make_user(db, stores=[])
    token = sign_in(closed_web)["access_token"]
    changed = patch(closed_web, admin, "Anna", role="uploader", stores=["south", "north"])
    assert changed.status_code == 200
    assert (changed.get_json()["role"], changed.get_json()["stores"]) == ("uploader", ["north", "south"])
    me = closed_web.get("/me", headers=bearer(token)).get_json()
    assert (me["role"], me["stores"]) == ("uploader", ["north", "south"])


def test_a_disabled_user_is_signed_out_and_stays_so(closed_web: FlaskClient, db: Db) -> None:
    admin = make_key(db)
    make_user(db)
    tokens = sign_in(closed_web)
    assert patch(closed_web, admin, "anna", disabled=True).get_json()["disabled"] is True
    assert status(closed_web, tokens["access_token"]) == 401
    assert closed_web.post("/login", json={"username": "anna", "password": PASSWORD}).status_code == 401
    assert patch(closed_web, admin, "anna", disabled=False).status_code == 200
    assert closed_web.post("/refresh", json={"refresh_token": tokens["refresh_token"]}).status_code == 401
    sign_in(closed_web)


def test_an_invalid_change_is_refused(closed_web: FlaskClient, db: Db) -> None:
    admin = make_key(db)
    make_user(db)
    wrong: list[dict[str, Any]] = [
        {"role": "owner"}, {"role": None}, {"role": {"$ne": 1}}, {"stores": "north"}, {"stores": [1]}, {"disabled": "yes"}, {"email": "b@example.com"}, {"password": "x"},
    ]  # fmt: skip
    assert [patch(closed_web, admin, "anna", **body).status_code for body in wrong] == [422] * len(wrong)
    for name in ("nobody", "a@b", "%00", "$where", "anna%2F", "a" * 65):
        assert patch(closed_web, admin, name, role="viewer").status_code == 404


def test_a_limited_administrator_changes_nobody_with_more_rights(closed_web: FlaskClient, db: Db) -> None:
    chief = make_key(db, "admin", ["north", "south"])
    make_user(db, "owner", "admin")
    make_user(db, "helper", "viewer", ["north"])
    for username, body in (("owner", {"disabled": True}), ("owner", {"role": "viewer"}), ("helper", {"stores": ["*"]}), ("helper", {"stores": ["west"]})):
        refused = patch(closed_web, chief, username, **body)
        assert (refused.status_code, refused.get_json()["code"]) == (403, "exceeds_rights")
    offered = closed_web.post("/users/owner/reset_password", headers=bearer(chief))
    assert (offered.status_code, offered.get_json()["code"]) == (403, "exceeds_rights")
    invited = closed_web.post("/invitations", json={"role": "viewer", "stores": ["*"]}, headers=bearer(chief))
    assert (invited.status_code, invited.get_json()["code"]) == (403, "exceeds_rights")
    assert patch(closed_web, chief, "helper", role="admin", stores=["south"]).status_code == 200
    listed = closed_web.get("/users", headers=bearer(chief)).get_json()["users"]
    assert [user["username"] for user in listed] == ["helper"]


def test_the_last_administrator_stays(closed_web: FlaskClient, db: Db) -> None:
    admin = make_key(db)
    make_user(db, "owner", "admin")
    make_user(db, "chief", "admin", ["north"])
    for body in ({"role": "viewer"}, {"disabled": True}, {"stores": ["north"]}):
        refused = patch(closed_web, admin, "owner", **body)
        assert (refused.status_code, refused.get_json()["code"]) == (409, "last_admin")
    make_user(db, "second", "admin")
    assert patch(closed_web, admin, "owner", role="viewer").status_code == 200
    assert patch(closed_web, admin, "second", disabled=True).status_code == 409


def test_of_two_administrators_who_remove_each_other_one_stays(db: Db) -> None:
    def demote(username: str) -> bool:
        try:
            users.change(db, username, Change(role="viewer"), OPEN.rights)
        except Conflict:
            return False
        return True

    for attempt in range(5):
        names = [f"a{attempt}", f"b{attempt}"]
        for name in names:
            make_user(db, name, "admin")
        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(demote, names)) == [False, True]
        db.users.delete_many({})


def test_an_invitation_is_used_once_and_gives_its_role_and_stores(closed_web: FlaskClient, db: Db) -> None:
    admin = make_key(db)
    made = closed_web.post("/invitations", json={"role": "tagger", "stores": ["north"]}, headers=bearer(admin))
    assert made.status_code == 201
    assert made.get_json()["url"].endswith(f"/signup#invitation={made.get_json()['token']}")
    listed = closed_web.get("/invitations", headers=bearer(admin))
    assert made.get_json()["token"] not in listed.text
    assert [(row["role"], row["stores"]) for row in listed.get_json()["invitations"]] == [("tagger", ["north"])]
    make_user(db)
    taken = sign_up(closed_web, made.get_json()["token"], "anna")
    assert taken.status_code == 409  # the invitation can still be used
    with ThreadPoolExecutor(4) as pool:
        application = closed_web.application
        responses = list(pool.map(lambda number: sign_up(application.test_client(), made.get_json()["token"], f"new{number}"), range(4)))
    assert sorted(response.status_code for response in responses) == [201, 410, 410, 410]
    user = next(response for response in responses if response.status_code == 201).get_json()
    assert (user["role"], user["stores"]) == ("tagger", ["north"])
    assert sign_up(closed_web, "x" * 43).get_json()["code"] == "bad_link"
    assert closed_web.get("/invitations", headers=bearer(admin)).get_json()["invitations"] == []


def test_a_link_stops_working_with_the_rights_of_whoever_made_it(closed_web: FlaskClient, db: Db) -> None:
    make_user(db, "owner", "admin")
    make_user(db, "chief", "admin", ["north"])
    make_user(db, stores=["north"])
    token = sign_in(closed_web, "chief")["access_token"]
    invitation = closed_web.post("/invitations", json={"role": "admin", "stores": ["north"]}, headers=bearer(token)).get_json()["token"]
    reset = closed_web.post("/users/anna/reset_password", headers=bearer(token)).get_json()["token"]
    users.change(db, "chief", Change(role="uploader"), OPEN.rights)
    assert sign_up(closed_web, invitation).status_code == 410
    users.change(db, "chief", Change(disabled=True), OPEN.rights)
    assert closed_web.post("/reset_password", json={"token": reset, "new_password": OTHER_PASSWORD}).status_code == 410


def test_a_link_for_a_new_password_is_used_once_and_ends_all_sessions(closed_web: FlaskClient, db: Db) -> None:
    admin = make_key(db)
    make_user(db, email="anna@example.com")
    tokens = sign_in(closed_web)
    first = closed_web.post("/users/anna/reset_password", headers=bearer(admin)).get_json()
    second = closed_web.post("/users/anna/reset_password", headers=bearer(admin)).get_json()

    def reset(token: str, password: str = OTHER_PASSWORD) -> int:
        return closed_web.post("/reset_password", json={"token": token, "new_password": password}).status_code

    assert reset(first["token"]) == 410  # replaced by the second one
    assert reset(second["token"], "anna@example.com") == 422  # which does not use the link up
    assert status(closed_web, tokens["access_token"]) == 200
    assert reset(second["token"]) == 204
    assert reset(second["token"]) == 410
    assert status(closed_web, tokens["access_token"]) == 401
    sign_in(closed_web, password=OTHER_PASSWORD)


def test_links_expire(closed_web: FlaskClient, db: Db) -> None:
    admin = make_key(db)
    token = closed_web.post("/invitations", json={"role": "viewer", "stores": []}, headers=bearer(admin)).get_json()["token"]
    db.one_time_links.update_many({}, [{"$set": {"expires_at": "$$NOW"}}])
    assert sign_up(closed_web, token).status_code == 410


def test_nobody_is_invited_where_nobody_can_sign_up(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    access = settings.Access(access="on", signup="closed", signing_keys=json.dumps(accounts.SIGNING_KEYS))
    web = web_client.make_client(mongo, blobs_root, access=access)
    refused = web.post("/invitations", json={"role": "viewer", "stores": ["north"]}, headers=bearer(make_key(db)))
    assert (refused.status_code, refused.get_json()["code"]) == (403, "signup_closed")


def test_an_invited_user_signs_up_where_invitations_are_needed(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    access = settings.Access(access="on", signup="invited", signing_keys=json.dumps(accounts.SIGNING_KEYS))
    web = web_client.make_client(mongo, blobs_root, access=access)
    token = web.post("/invitations", json={"role": "viewer", "stores": ["north"]}, headers=bearer(make_key(db))).get_json()["token"]
    assert sign_up(web, token).status_code == 201
