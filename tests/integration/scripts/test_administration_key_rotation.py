"""``scripts/admin rotate-keys``: which file it changes, what it prints and records, and what it refuses."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pymongo.common
import pytest
from click.testing import CliRunner, Result

from scripts.administration.__main__ import cli
from scripts.local.installation import Installation
from shared import settings
from shared.accounts import signing_key_file
from shared.storage.mongo import Db
from tests.support.accounts import SIGNING_KEYS
from tests.support.paths import ROOT

NEW_ID = re.compile(r"\d{8}T\d{6}Z")


@pytest.fixture(autouse=True)
def _environment(mongo: settings.Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URL", mongo.url)
    monkeypatch.setenv("MONGODB_DATABASE", mongo.database)
    for name in ("SIGNING_KEYS", "SIGNING_KEYS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pymongo.common, "MIN_HEARTBEAT_INTERVAL", 0.1)  # so long a client waits before it tries again to connect


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file with the key ``test`` that was made long ago."""
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(SIGNING_KEYS))
    make_old(path)
    return path


@pytest.fixture
def given_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return this file, which ``SIGNING_KEYS_FILE`` names."""
    monkeypatch.setenv("SIGNING_KEYS_FILE", str(file))
    return file


def make_old(path: Path) -> None:
    os.utime(path, (time.time() - 60, time.time() - 60))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def fail(*arguments: str, code: int = 1) -> str:
    """Return the error sentence of a command that changes nothing."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert "Traceback" not in result.stderr
    return result.stderr


def secrets_of(path: Path) -> list[str]:
    return [secret.decode() for secret in signing_key_file.read(path).values()]


def test_a_rotation_adds_a_key_and_says_what_happens_next(db: Db, given_file: Path) -> None:
    result = run("rotate-keys")
    assert (result.exit_code, result.stderr) == (0, "")
    new, old = signing_key_file.read(given_file)
    assert (old, bool(NEW_ID.fullmatch(new))) == ("test", True)
    assert re.fullmatch(
        rf"The signing key {new} was added\. All processes read it within seconds, and sign with it from \d\d:\d\d:\d\d UTC on; no restart is needed\.\n"
        r"Kept, because what they have signed can still be valid: test\.\n",
        result.stdout,
    )
    assert not [secret for secret in secrets_of(given_file) if secret in result.output]


def test_the_command_of_the_containers_gives_nginx_its_key_too(db: Db, given_file: Path, tmp_path: Path) -> None:
    service = re.search(r"(?m)^  rotate-keys:.*\n(?:    .*\n)*?    entrypoint: \[python, -m, scripts.administration, (.*)\]\n", (ROOT / "docker-compose.yaml").read_text())
    assert service is not None
    assert run(*service[1].replace("/secrets/nginx", str(tmp_path)).split(", "), "--drop-old", "--yes").exit_code == 0
    assert (tmp_path / "signed_url_keys.json").read_text() == signing_key_file.dump_url_keys(signing_key_file.read(given_file))


def test_the_json_object_names_the_keys_and_contains_no_secret(db: Db, given_file: Path) -> None:
    first: dict[str, Any] = json.loads(run("rotate-keys", "--json").stdout)
    assert list(signing_key_file.read(given_file)) == [first["id"], "test"]
    assert (first["kept"], first["dropped"], first["signs_at"][-1]) == (["test"], [], "Z")
    result = run("rotate-keys", "--drop-old", "--yes", "--json")
    second = json.loads(result.stdout)
    assert (second["kept"], second["dropped"]) == ([], [first["id"], "test"])
    assert list(signing_key_file.read(given_file)) == [second["id"]]
    assert secrets_of(given_file)[0] not in result.output


def test_a_rotation_is_in_the_security_log(db: Db, given_file: Path) -> None:
    run("rotate-keys")
    new = next(iter(signing_key_file.read(given_file)))
    (event,) = db.audit_events.find()
    assert (event["type"], event["actor"], event["target"]) == ("signing_keys.rotated", "operator", f"signing_key:{new}")
    assert event["details"] == {"kept": ["test"], "dropped": []}


def test_without_a_database_the_keys_are_rotated_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MONGODB_URL")
    installation = Installation(tmp_path, 5000, 1)  # its MongoDB was never started
    installation.prepare()
    installation.save()
    installation.secrets.mkdir()
    signing_key_file.create(installation.secrets / "signing_keys")
    make_old(installation.secrets / "signing_keys")
    result = run("rotate-keys", "--data", str(tmp_path))
    assert (result.exit_code, result.stderr) == (0, "warning: The rotation is not in the security log, because no database was found; see scripts/admin --help.\n")
    assert len(signing_key_file.read(installation.secrets / "signing_keys")) == 2


def test_the_keys_of_a_data_folder_are_rotated(db: Db, tmp_path: Path, mongo: settings.Mongo) -> None:
    installation = Installation(tmp_path / "data", 5000, 1)
    installation.prepare()
    installation.save()
    assert "run/secrets/signing_keys cannot be replaced: No such file or directory. scripts/start creates them" in fail("--data", str(tmp_path / "data"), "rotate-keys")
    installation.secrets.mkdir()
    path = installation.secrets / "signing_keys"
    signing_key_file.create(path)
    make_old(path)
    assert run("rotate-keys", "--data", str(tmp_path / "data")).exit_code == 0
    assert len(signing_key_file.read(path)) == 2
    assert db.audit_events.count_documents({"type": "signing_keys.rotated"}) == 1


def test_the_file_with_which_a_data_folder_was_started_is_rotated(db: Db, tmp_path: Path, given_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installation = Installation(tmp_path / "data", 5000, 1)
    installation.prepare()
    installation.save()
    monkeypatch.delenv("SIGNING_KEYS_FILE")
    assert run("rotate-keys", "--data", str(tmp_path / "data")).exit_code == 0
    assert len(signing_key_file.read(given_file)) == 2


def test_keys_in_the_environment_must_be_replaced_by_hand(db: Db, tmp_path: Path, given_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNING_KEYS", json.dumps(SIGNING_KEYS))
    installation = Installation(tmp_path / "data", 5000, 1)
    installation.prepare()
    installation.save()
    assert "Add a new key after the others there, and restart all processes" in fail("rotate-keys")
    monkeypatch.delenv("SIGNING_KEYS")
    assert "Add a new key after the others there" in fail("rotate-keys", "--data", str(tmp_path / "data"))  # it was started with them
    assert len(signing_key_file.read(given_file)) == 1


def test_dropping_the_old_keys_must_be_confirmed(db: Db, given_file: Path) -> None:
    assert "confirm this with --yes" in fail("rotate-keys", "--drop-old")
    assert list(signing_key_file.read(given_file)) == ["test"]


def test_a_terminal_is_asked_before_the_old_keys_are_dropped(db: Db, given_file: Path) -> None:
    terminal, side_of_command = pty.openpty()
    command = [sys.executable, "-m", "scripts.administration", "rotate-keys", "--drop-old"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdin=side_of_command, stdout=side_of_command, stderr=side_of_command, env=environment, start_new_session=True)
    os.close(side_of_command)
    screen = ""
    while not screen.endswith("[y/N]: "):
        screen += os.read(terminal, 1000).decode()
    os.write(terminal, b"n\n")
    assert process.wait(60) == 1
    os.close(terminal)
    assert "All sessions and all signed URLs end within seconds" in screen
    assert list(signing_key_file.read(given_file)) == ["test"]


def test_two_rotations_one_after_the_other_are_refused_with_the_time_to_wait(db: Db, given_file: Path) -> None:
    run("rotate-keys")
    assert re.search(r"^error: The signing keys have changed just now.*; try again in \d+ s\.$", fail("rotate-keys"), re.MULTILINE)


def test_too_many_keys_are_refused_with_the_option_that_drops_them(db: Db, given_file: Path) -> None:
    given_file.write_text(json.dumps({f"key-{number}": f"{SIGNING_KEYS['test']}{number}" for number in range(5)}))
    make_old(given_file)
    sentence = fail("rotate-keys")
    assert "5 keys are allowed" in sentence
    assert "--drop-old" in sentence


def test_damaged_keys_are_one_sentence_without_a_secret(db: Db, given_file: Path) -> None:
    given_file.write_text('{"1": "hunter2"}')
    make_old(given_file)
    sentence = fail("rotate-keys")
    assert sentence.count("\n") == 1
    assert 'are damaged: SIGNING_KEYS: the secret of the key "1" is too short' in sentence
    assert "hunter2" not in sentence


def test_a_list_shows_the_ids_and_the_age_of_the_keys(db: Db, given_file: Path) -> None:
    run("rotate-keys")
    new = next(iter(signing_key_file.read(given_file)))
    lines = run("list").stdout.splitlines()
    assert lines[-3:] == ["Signing keys:", f"  {new}  created 0 days ago, is still accepted", "  test  signs"]  # the new one signs in half a minute
    make_old(given_file)
    assert run("list").stdout.splitlines()[-2:] == [f"  {new}  created 0 days ago, signs", "  test  is still accepted"]
    listed = json.loads(run("list", "--json").stdout)["signing_keys"]
    assert [(key["id"], key["signs"], key["created_at"] is None) for key in listed] == [(new, True, False), ("test", False, True)]
    assert not [secret for secret in secrets_of(given_file) if secret in run("list", "--json").stdout]
