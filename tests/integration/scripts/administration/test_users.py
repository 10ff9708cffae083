"""``scripts/admin``: the commands about users."""

import os
import pty
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from scripts.administration.__main__ import cli
from shared import settings
from shared.accounts import one_time_links, sessions, users
from shared.accounts.authenticator import Authenticator
from shared.accounts.passwords import PasswordHasher
from shared.accounts.permissions import ROLES, SCOPES, Rights
from shared.accounts.signing_keys import FixedSigningKeys
from shared.accounts.tokens import TokenSigner
from shared.errors import Gone, Unauthorized
from shared.storage.mongo import Db, connect
from tests.support.admin_commands import PASSWORD, authenticator, fail, run, run_json
from tests.support.paths import ROOT


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
    signer = TokenSigner(FixedSigningKeys({"a": bytes(range(32))}))
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
