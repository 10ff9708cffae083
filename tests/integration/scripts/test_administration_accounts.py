"""``scripts/admin``: the commands about users and API keys."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pymongo.common
import pytest
from argon2.profiles import CHEAPEST
from click.testing import CliRunner, Result

from scripts.administration import account_list
from scripts.administration.__main__ import cli
from scripts.local.installation import Installation
from shared import settings, telemetry
from shared.accounts import key_format, one_time_links, sessions, users
from shared.accounts.authenticator import Authenticator
from shared.accounts.clock import utc_now
from shared.accounts.passwords import PasswordHasher
from shared.accounts.permissions import ROLES, SCOPES, Rights
from shared.accounts.tokens import TokenSigner
from shared.errors import Gone, Unauthorized
from shared.storage.mongo import Db, connect
from tests.support.paths import ROOT

PASSWORD: Final = "quiet copper lantern"
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


@pytest.fixture(autouse=True)
def _environment(mongo: settings.Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URL", mongo.url)
    monkeypatch.setenv("MONGODB_DATABASE", mongo.database)
    monkeypatch.delenv("PUBLIC_URL", raising=False)
    monkeypatch.setattr(pymongo.common, "MIN_HEARTBEAT_INTERVAL", 0.1)  # so long a client waits before it tries again to connect
    # The parameters that the service uses cost a tenth of a second for each hash.
    monkeypatch.setattr("scripts.administration.users.PasswordHasher", partial(PasswordHasher, parameters=CHEAPEST))


@pytest.fixture
def admin(db: Db) -> users.User:
    """Return the only administrator, who has all stores."""
    return users.create(db, users.NewUser("alice", "alice@example.com", "admin", Rights(ROLES["admin"], None), None))


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, arguments, input=stdin)


def run_json(*arguments: str, stdin: str | None = None) -> dict[str, Any]:
    result = run(*arguments, "--json", stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    shown: dict[str, Any] = json.loads(result.stdout)
    return shown


def fail(*arguments: str, code: int = 1, stdin: str | bytes | None = None) -> str:
    """Return the error sentence of a command that fails."""
    result = run(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (code, "")
    assert "Traceback" not in result.stderr
    return result.stderr


def authenticator(db: Db) -> Authenticator:
    return Authenticator(db, TokenSigner({}))


def test_a_user_with_a_password_from_standard_input_can_sign_in(db: Db) -> None:
    arguments = ["create-user", "Alice", "--email", "alice@example.com", "--role", "tagger", "--stores", "Main, East", "--stores", "West", "--password-stdin"]
    shown = run_json(*arguments, stdin=f"{PASSWORD}\r\nsecond line\n")
    user = users.get(db, "alice")
    assert shown.pop("created_at").startswith(user.created_at.isoformat(timespec="milliseconds"))
    assert shown == {
        "username": "Alice",
        "email": "alice@example.com",
        "role": "tagger",
        "scopes": ["images:read", "tags:write", "exports:read"],
        "stores": ["Main, East", "West"],
        "disabled": False,
        "reset_link": None,
    }
    assert user.rights == Rights(ROLES["tagger"], frozenset({"Main, East", "West"}))
    assert PasswordHasher(1, 1.0).verify(user.password_hash, PASSWORD)


@pytest.mark.parametrize("option", [[], ["--link"]])
def test_without_a_terminal_a_user_sets_the_password_with_the_printed_token(db: Db, option: list[str]) -> None:
    result = run("create-user", "bob", "--role", "admin", "--stores", "*", *option)
    assert result.exit_code == 0
    assert result.stderr.startswith("The user bob was created (admin, all stores).")
    assert users.get(db, "bob").password_hash is None
    token = result.stdout.removesuffix("\n")
    assert one_time_links.set_new_password(db, token, "hash").rights == Rights(ROLES["admin"], None)
    with pytest.raises(Gone):
        one_time_links.set_new_password(db, token, "hash")


def test_a_terminal_is_asked_for_the_password_twice_until_it_is_acceptable(db: Db) -> None:
    terminal, side_of_command = pty.openpty()
    command = [sys.executable, "-m", "scripts.administration", "create-user", "alice"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdin=side_of_command, stdout=side_of_command, stderr=side_of_command, env=environment, start_new_session=True)
    os.close(side_of_command)
    screen, answers = "", ["password", "password", PASSWORD, "another " + PASSWORD, PASSWORD, PASSWORD]
    while True:
        try:
            screen += os.read(terminal, 1000).decode()
        except OSError:  # the command has ended
            break
        if screen.count("assword: ") > 6 - len(answers):
            os.write(terminal, f"{answers.pop(0)}\n".encode())
    assert process.wait(60) == 0
    os.close(terminal)
    assert answers == []
    assert PASSWORD not in screen
    assert "error: The password is too short" in screen
    assert "do not match" in screen
    stored, hasher = users.get(db, "alice").password_hash, PasswordHasher(1, 1.0)
    assert hasher.verify(stored, PASSWORD)
    assert stored is not None
    assert not hasher.needs_rehash(stored)


def test_of_two_first_administrators_with_the_same_name_at_the_same_time_one_is_created(db: Db, capsys: pytest.CaptureFixture[str]) -> None:
    def create(name: str) -> object:
        with pytest.raises(SystemExit) as end:
            cli(["create-user", name, "--role", "admin", "--stores", "*", "--link"])
        return end.value.code

    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(create, ["alice", "ALICE", "Alice", "aLICE"]))
    assert (codes.count(0), codes.count(1)) == (1, 3)
    assert capsys.readouterr().err.count("error: This user name or this email address is already taken; choose another one.\n") == 3
    assert db.users.count_documents({}) == 1


def test_no_user_is_created_before_the_database_can_keep_names_unique(mongo: settings.Mongo) -> None:
    database = connect(mongo, app="test")
    assert fail("create-user", "alice", "--link") == "error: The database is not up to date; run scripts/admin migrate first.\n"
    assert database.list_collection_names() == []
    database.client.close()


def test_a_change_of_a_user_shows_the_user_as_the_api_does(db: Db, admin: users.User) -> None:
    run("create-user", "bob", "--link")
    assert run_json("set-role", "bob", "uploader")["scopes"] == [scope for scope in SCOPES if scope in ROLES["uploader"]]
    assert run_json("set-stores", "bob", "B", "A", "B")["stores"] == ["A", "B"]
    assert run_json("set-stores", "bob", "A", "*")["stores"] == ["*"]
    assert users.get(db, "bob").rights == Rights(ROLES["uploader"], None)
    assert run_json("set-stores", "bob", "--none")["stores"] == []
    assert run("disable-user", "BOB").stdout == "The user bob is disabled (uploader, no stores).\n"
    assert run_json("enable-user", "bob")["disabled"] is False


def test_disabling_a_user_ends_the_sessions_and_refuses_the_keys_until_the_user_is_enabled(db: Db, admin: users.User) -> None:
    run("create-user", "bob", "--stores", "*", "--link")
    signer = TokenSigner({"a": bytes(range(32))})
    bob = users.get(db, "bob")
    token = sessions.start(db, signer, bob).access_token
    key = run("create-key", "--name", "k", "--role", "viewer", "--stores", "*", "--user", "bob").stdout.strip()
    assert Authenticator(db, signer).authenticate(token).user_id == bob.id
    run("disable-user", "bob")
    for credentials in (token, key):
        with pytest.raises(Unauthorized):
            Authenticator(db, signer).authenticate(credentials)
    run("enable-user", "bob")
    assert authenticator(db).authenticate(key).username == "bob"
    with pytest.raises(Unauthorized):
        Authenticator(db, signer).authenticate(token)


@pytest.mark.parametrize("change", [["set-role", "alice", "uploader"], ["set-stores", "alice", "Main Street"], ["disable-user", "alice"]])
def test_the_last_administrator_stays(db: Db, admin: users.User, change: list[str]) -> None:
    assert fail(*change) == "error: This is the last administrator; make another one first.\n"
    assert users.get(db, "alice") == admin
    run("create-user", "bob", "--role", "admin", "--stores", "*", "--link")
    assert run(*change).exit_code == 0


def test_a_reset_link_sets_a_new_password_and_replaces_earlier_links(db: Db, admin: users.User) -> None:
    first = run_json("reset-password", "alice")
    assert (sorted(first), first["username"], first["url"]) == (["expires_at", "token", "url", "username"], "alice", None)
    second = run("reset-password", "alice", "--url", "https://shelf.example/")
    url, _, token = second.stdout.strip().partition("#token=")
    assert url == "https://shelf.example/reset_password"
    assert "With this link, alice can set a new password once" in second.stderr
    with pytest.raises(Gone):
        one_time_links.find(db, "password_reset", first["token"])
    assert one_time_links.set_new_password(db, token, "hash").id == admin.id


def test_the_setting_of_the_public_address_is_used_for_links(admin: users.User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLIC_URL", "https://shelf.example")
    shown = run_json("reset-password", "alice")
    assert shown["url"] == f"https://shelf.example/reset_password#token={shown['token']}"
    monkeypatch.setenv("PUBLIC_URL", "")  # as the containers do if it is not set
    assert run_json("reset-password", "alice")["url"] is None


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
    assert json.loads(run("list", "--json").stdout) == {"users": [], "api_keys": []}


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


def test_a_change_that_cannot_be_recorded_is_made_with_a_warning(db: Db, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, telemetry.errors.name)  # an application that another test has created may have raised the level
    db.command("collMod", "audit_events", validator={"never": {"$exists": True}})
    result = run("create-key", "--name", "k", "--role", "viewer", "--stores", "*")
    assert result.exit_code == 0
    authenticator(db).authenticate(result.stdout.strip())
    assert "warning: A security event cannot be stored in MongoDB" in result.stderr


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


def test_a_password_that_is_not_acceptable_is_refused_and_not_shown(db: Db) -> None:
    faults = {
        b"": "too short",
        b"\n" + PASSWORD.encode(): "too short",
        b"hunter2hunter2hunter2": "repeats a shorter text",
        b"bob@example.com\n": "your user name or your email address",
        b"correct horse \xff battery": "invalid character",
        b"correct horse \x00 battery": "control character",
        b"correct horse battery staple" * 1000: "too long",
    }
    for password, sentence in faults.items():
        error = fail("create-user", "bob", "--email", "bob@example.com", "--password-stdin", stdin=password)
        assert sentence in error
        assert "horse" not in error
    assert db.users.count_documents({}) == 0


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
