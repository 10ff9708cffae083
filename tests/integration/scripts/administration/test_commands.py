"""``scripts/admin``: what all commands about users and API keys have in common, and the list of both."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest

from scripts.administration import account_list
from scripts.local.installation import Installation
from shared.accounts import users
from shared.storage.mongo import Db
from tests.support.admin_commands import PASSWORD, authenticator, fail, run, run_json

COMMANDS: Final = [
    ["create-user", "alice", "--link"],
    ["set-role", "alice", "admin"],
    ["set-stores", "alice", "*"],
    ["disable-user", "alice"],
    ["enable-user", "alice"],
    ["reset-password", "alice"],
    ["create-key", "--name", "key", "--role", "viewer", "--stores", "*"],
    ["revoke-key", "0123456789abcdef"],
    ["list"],
]


@pytest.fixture
def data(tmp_path: Path, db: Db, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the data folder of an installation. The environment names another database, which does not respond."""
    installation = Installation(tmp_path / "data", 5000, 1)  # saves the variables of this environment
    installation.prepare()
    installation.save()
    monkeypatch.setenv("MONGODB_URL", "mongodb://127.0.0.1:1/")
    monkeypatch.setenv("MONGODB_SERVER_SELECTION_TIMEOUT_S", "0.1")
    return str(tmp_path / "data")


def test_the_data_folder_can_be_named_before_and_after_the_command(data: str, db: Db) -> None:
    key = ["create-key", "--name", "n", "--role", "admin", "--stores", "*", "--json"]
    for arguments in (["--data", data, *key], [*key, "--data", data], ["--data", "/nonexistent", *key, "--data", data]):
        result = run(*arguments)
        assert result.exit_code == 0
        authenticator(db).authenticate(json.loads(result.stdout)["key"])
    assert fail(*key, code=3).startswith("error: The database does not respond")
    assert "Nothing was started with the data folder /nonexistent yet." in fail("--data", "/nonexistent", *key, code=2)


def test_all_users_and_keys_are_listed_in_several_pages(db: Db, admin: users.User, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_json("enable-user", "alice")["username"] == "alice"
    monkeypatch.setattr(account_list, "_PAGE", 2)
    for number in range(4):
        run("create-user", f"user-{number}", "--link", "--stores", f"store {number}")
    run("disable-user", "user-0")
    made = [run_json("create-key", "--name", f"key {number}", "--role", "viewer", "--stores", "*", *owner) for number, owner in enumerate([[], ["--user", "alice"], []])]
    result = run("list", "--json")
    listed = json.loads(result.stdout)
    assert [user["username"] for user in listed["users"]] == ["user-3", "user-2", "user-1", "user-0", "alice"]
    assert listed["users"][3] == run_json("disable-user", "user-0")
    assert listed["api_keys"] == sorted(({name: value for name, value in key.items() if name != "key"} for key in made), key=lambda key: str(key["id"]))
    assert sorted(str(key["username"]) for key in listed["api_keys"]) == ["None", "None", "alice"]
    secrets = {key["key"] for key in made}
    assert not any(secret in result.stdout for secret in secrets)


def test_the_list_for_people_says_what_cannot_be_used(db: Db, admin: users.User) -> None:
    assert run("list").stdout == "Users:\n  alice                 admin, all stores  alice@example.com  no password yet\nAPI keys:\n"
    run("create-user", "bob", "--stores", "A", "--stores", "B", "--password-stdin", stdin=PASSWORD)
    run("disable-user", "bob")
    run("create-key", "--name", "camera", "--scope", "images:upload", "--stores", "A", "--expires", "1h")
    run("create-key", "--name", "report", "--role", "admin", "--stores", "*", "--user", "alice")
    db.api_keys.update_one({"name": "camera"}, {"$set": {"expires_at": datetime(2026, 1, 1), "last_used_at": datetime(2025, 12, 31, 23, 59)}})
    lines = [re.sub(r"^  [0-9a-z]{16}(?=  )", "  ID", line) for line in run("list").stdout.splitlines()]
    assert "  bob                   viewer, stores: A, B  disabled" in lines
    assert "  ID  camera  images:upload, stores: A  expired 2026-01-01 00:00 UTC  last used 2025-12-31 23:59 UTC" in lines
    assert "  ID  report  user alice  admin, all stores  never used" in lines


def test_the_lists_of_an_empty_database_are_empty(db: Db) -> None:
    assert json.loads(run("list", "--json").stdout) == {"users": [], "api_keys": [], "signing_keys": []}


def test_every_change_is_in_the_security_log_without_secrets(db: Db, admin: users.User) -> None:
    token = run_json("create-user", "bob", "--role", "tagger", "--stores", "A")["reset_link"]["token"]
    run("set-stores", "bob", "B")
    shown = run_json("create-key", "--name", "k", "--scope", "images:read", "--stores", "B", "--user", "bob")
    run("revoke-key", shown["id"])
    run("reset-password", "alice")
    run("list")
    fail("set-role", "alice", "viewer")
    events = list(db.audit_events.find().sort("_id", 1))
    bob = f"user:{users.get(db, 'bob').id}"
    assert [(event["type"], event["target"]) for event in events] == [
        ("user.created", bob),
        ("reset_link.created", bob),
        ("user.changed", bob),
        ("api_key.created", f"key:{shown['id']}"),
        ("api_key.deleted", f"key:{shown['id']}"),
        ("reset_link.created", f"user:{admin.id}"),
    ]
    assert {event["actor"] for event in events} == {"operator"}
    assert events[2]["details"] == {"username": "bob", "old_stores": ["A"], "new_stores": ["B"]}
    assert events[3]["details"] == {"name": "k", "role": None, "scopes": ["images:read"], "stores": ["B"], "username": "bob"}
    assert not any(secret in str(events) for secret in (token, shown["key"]))


def test_what_does_not_exist_or_is_taken_is_refused_with_a_sentence(db: Db, admin: users.User) -> None:
    unknown = "error: There is no user with this name.\n"
    taken = "error: This user name or this email address is already taken; choose another one.\n"
    assert fail("create-user", "ALICE", "--link") == taken
    assert fail("create-user", "bob", "--email", "Alice@example.com", "--link") == taken
    for name in ("nobody", "$where", "alice@example.com", "", "\udcff"):
        for command in (["set-role", name, "admin"], ["set-stores", name, "*"], ["disable-user", name], ["enable-user", name], ["reset-password", name]):
            assert fail(*command) == unknown
        assert fail("create-key", "--name", "k", "--role", "viewer", "--stores", "*", "--user", name) == unknown
    assert fail("revoke-key", "0123456789abcdef") == "error: There is no API key with this id.\n"
    assert users.list_page(db, admin.rights, None, 10) == [admin]
    assert db.api_keys.count_documents({}) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["create-user"], "Missing argument 'NAME'"),
        (["create-user", "bob smith"], "A user name has"),
        (["create-user", "bob", "--role", "root"], "'root' is not one of"),
        (["create-user", "bob", "--email", "bob"], "An email address has the form"),
        (["create-user", "bob", "--stores", ""], "The name of a store has"),
        (["create-user", "bob", "--link", "--password-stdin"], "either --password-stdin or --link"),
        (["create-user", "bob", "--link", "--url", "shelf"], "Give an address"),
        (["set-role", "alice", "operator"], "'operator' is not one of"),
        (["set-stores", "alice"], "Name at least one store"),
        (["set-stores", "alice", "A", "--none"], "Name at least one store"),
        (["create-key", "--name", "k", "--stores", "*"], "either --role or --scope"),
        (["create-key", "--name", "k", "--stores", "*", "--role", "viewer", "--scope", "images:read"], "either --role or --scope"),
        (["create-key", "--name", "k", "--stores", "*", "--scope", "everything"], "'everything' is not one of"),
        (["create-key", "--name", "k", "--role", "viewer"], "Missing option '--stores'"),
        (["create-key", "--role", "viewer", "--stores", "*"], "Missing option '--name'"),
        (["create-key", "--name", "k", "--role", "viewer", "--stores", "*", "--expires", "yesterday"], "Give a time in the future"),
        (["revoke-key", "sfs_0123456789abcdef_pasted"], "The id of a key has"),
        (["revoke-key", "\udcff"], "The id of a key has"),
    ],
)
def test_a_wrong_command_line_is_refused_with_a_sentence(arguments: list[str], sentence: str) -> None:
    error = fail(*arguments, code=2)
    assert sentence in error
    assert "pasted" not in error


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_every_command_has_an_exit_code_for_a_mongodb_that_does_not_respond(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URL", "mongodb://127.0.0.1:1/?replicaSet=shelfsight")
    monkeypatch.setenv("MONGODB_SERVER_SELECTION_TIMEOUT_S", "0.1")
    result = run(*arguments)
    assert result.exit_code == 3
    assert result.stderr.startswith("error: The database does not respond")


@pytest.mark.parametrize("command", sorted({arguments[0] for arguments in COMMANDS}))
def test_help_teaches_each_command_with_examples_and_exit_codes(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert re.search(f"scripts/admin .*{command}", result.stdout)
    assert all(text in result.stdout for text in ("Examples:", "Exit codes:", "JSON object", "--data DIR"))
