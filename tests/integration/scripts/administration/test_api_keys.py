"""``scripts/admin``: the commands about API keys."""

import logging
import re
from datetime import timedelta

import pytest

from shared import telemetry
from shared.accounts import key_format, users
from shared.accounts.permissions import ROLES, SCOPES, Rights
from shared.clock import utc_now
from shared.errors import Unauthorized
from shared.storage.mongo import Db
from tests.support.admin_commands import authenticator, fail, run, run_json


def test_a_new_key_is_accepted_until_it_is_revoked(db: Db) -> None:
    shown = run_json("create-key", "--name", " deploy ", "--role", "admin", "--stores", "*")
    key, key_id = shown["key"], shown["id"]
    assert shown | {"created_at": None} == {
        "id": key_id,
        "prefix": key_format.display_prefix(key_id),
        "name": "deploy",
        "username": None,
        "role": "admin",
        "scopes": list(SCOPES),
        "stores": ["*"],
        "created_at": None,
        "created_by": "operator",
        "expires_at": None,
        "last_used_at": None,
        "key": key,
    }
    principal = authenticator(db).authenticate(key)
    assert (principal.account, principal.rights) == (f"key:{key_id}", Rights(ROLES["admin"], None))

    del shown["key"]
    assert run_json("revoke-key", key_id) == shown
    with pytest.raises(Unauthorized):
        authenticator(db).authenticate(key)
    assert fail("revoke-key", key_id) == "error: There is no API key with this id.\n"


def test_a_script_captures_the_key_from_standard_output(db: Db) -> None:
    result = run("create-key", "--name", "camera", "--scope", "images:upload", "--scope", "images:read", "--stores", "A, B", "--stores", "C", "--expires", "90d")
    assert re.fullmatch(r"sfs_\w+\n", result.stdout)
    assert result.stdout.strip() not in result.stderr
    principal = authenticator(db).authenticate(result.stdout.strip())
    assert principal.rights == Rights(frozenset({"images:upload", "images:read"}), frozenset({"A, B", "C"}))
    assert principal.key is not None
    assert principal.key.expires_at is not None
    assert abs(principal.key.expires_at - utc_now() - timedelta(days=90)) < timedelta(minutes=5)
    assert run("revoke-key", principal.key.id).stdout == f"The API key {principal.key.id} (camera) was deleted. It is refused within five seconds.\n"


def test_a_key_of_a_user_never_has_more_rights_than_the_user(db: Db, admin: users.User) -> None:
    run("create-user", "bob", "--role", "uploader", "--stores", "A", "--link")
    key = run("create-key", "--name", "k", "--role", "uploader", "--stores", "A", "--user", "bob").stdout.strip()
    assert authenticator(db).authenticate(key).account == f"user:{users.get(db, 'bob').id}"
    run("set-role", "bob", "viewer")
    assert authenticator(db).authenticate(key).rights == Rights(ROLES["viewer"], frozenset({"A"}))
    for excess in (["--role", "uploader", "--stores", "A"], ["--role", "viewer", "--stores", "*"]):
        assert "The user bob (viewer, stores: A) has fewer rights than the key would have" in fail("create-key", "--name", "k", *excess, "--user", "bob")
    run("disable-user", "bob")
    assert "The user bob is disabled" in fail("create-key", "--name", "k", "--role", "viewer", "--stores", "A", "--user", "bob")
    assert db.api_keys.count_documents({}) == 1


def test_a_change_that_cannot_be_recorded_is_made_with_a_warning(db: Db, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, telemetry.errors.name)  # an application that another test has created may have raised the level
    db.command("collMod", "audit_events", validator={"never": {"$exists": True}})
    result = run("create-key", "--name", "k", "--role", "viewer", "--stores", "*")
    assert result.exit_code == 0
    authenticator(db).authenticate(result.stdout.strip())
    assert "warning: A security event cannot be stored in MongoDB" in result.stderr
