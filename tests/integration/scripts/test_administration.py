"""``scripts/admin``: how its commands find the database, what they print, and their exit codes."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

from scripts.administration.__main__ import cli
from scripts.local.installation import Installation
from scripts.local.temporary_servers import Mongod
from shared import settings
from shared.storage.migrations.lock import MigrationLock
from shared.storage.migrations.registry import find_migrations
from shared.storage.mongo import Db, connect
from tests.support.paths import ROOT

_NAMES: Final = [migration.name for migration in find_migrations()]


@pytest.fixture
def empty(mongo: settings.Mongo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Db]:
    """Return a database without collections, which MONGODB_URL and MONGODB_DATABASE name."""
    monkeypatch.setenv("MONGODB_URL", mongo.url)
    monkeypatch.setenv("MONGODB_DATABASE", mongo.database)
    database = connect(mongo, app="test")
    yield database
    database.client.drop_database(database.name)
    database.client.close()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def read_status(*arguments: str) -> dict[str, Any]:
    result = run("status", "--json", *arguments)
    status: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if status["up_to_date"] else 1)
    return status


def test_migrate_brings_a_database_up_to_date_and_status_says_so(empty: Db) -> None:
    before = read_status()
    assert (before["pending"], before["newer"], before["holder"]) == (_NAMES, [], None)
    assert "images.claimable_by_turn" in before["missing_indexes"]
    assert "not up to date" in run("status").stdout

    first, second = run("migrate"), run("migrate")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.stdout.endswith(f"Migrations that were run: {', '.join(_NAMES)}.\n")
    assert second.stdout == "The database is up to date. Migrations that were run: none.\n"

    finished = run("migrate", "--finish")
    assert finished.exit_code == 0
    assert finished.stdout.endswith("The update is finished. Images that were completed: 0. What was dropped: nothing.\n")

    after = read_status()
    assert (after["up_to_date"], after["pending"], after["missing_indexes"], after["update_finished"]) == (True, [], [], True)
    assert [record["state"] for record in after["migrations"]] == ["done"] * len(_NAMES)
    assert after["migrations"][0]["finished_at"].endswith("Z")
    assert run("status").stdout.endswith("The database is up to date.\n")


def test_an_update_is_finished_by_hand_after_processes_of_the_version_before_could_run(empty: Db) -> None:
    empty.images.create_index([("tags", 1), ("batch_id", -1)])
    unfinished = "The update is not finished. When no process of the version before is running, run scripts/admin migrate --finish.\n"
    assert run("migrate").stdout.endswith(unfinished)
    found = read_status()
    assert (found["up_to_date"], found["update_finished"], list(found["superseded_indexes"])) == (True, False, ["images.tags_1_batch_id_-1"])
    shown = run("status").stdout
    assert "images.tags_1_batch_id_-1 (lists the images with a tag" in shown
    assert unfinished in shown
    assert run("migrate", "--finish").stdout.endswith("What was dropped: images.tags_1_batch_id_-1.\n")
    assert read_status()["update_finished"]
    assert "not finished" not in run("status").stdout + run("migrate").stdout


def test_status_of_old_code_names_the_migrations_of_newer_code(empty: Db) -> None:
    run("migrate")
    newer = empty.migrations.find_one({"_id": 1})
    assert newer is not None
    empty.migrations.insert_one(newer | {"_id": 9999, "name": "m9999_later"})
    assert (read_status()["up_to_date"], read_status()["newer"]) == (True, ["m9999_later"])
    assert "A newer version has updated this database." in run("status").stdout


def test_migrate_that_waited_in_vain_names_the_process_that_holds_the_lock(empty: Db) -> None:
    assert MigrationLock(empty).acquire() is None
    result = run("migrate", "--wait", "0")
    assert result.exit_code == 4
    assert f"process {os.getpid()} on " in result.stderr


def test_an_index_with_another_definition_ends_migrate_with_its_name(empty: Db) -> None:
    empty.images.create_index([("work.lease_until", -1)], name="leases")
    result = run("migrate")
    assert result.exit_code == 1
    assert "the keys of leases in the collection images" in result.stderr


def test_a_mongodb_that_does_not_respond_has_its_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URL", "mongodb://127.0.0.1:1/?replicaSet=shelfsight")
    monkeypatch.setenv("MONGODB_SERVER_SELECTION_TIMEOUT_S", "0.1")
    for command in ("migrate", "status"):
        result = run(command)
        assert result.exit_code == 3
        assert result.stderr.startswith("error: The database does not respond")


def test_a_data_folder_names_the_database_of_its_installation(empty: Db, mongo: settings.Mongo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installation = Installation(tmp_path / "data", 5000, 1)  # saves the variables of this environment
    installation.prepare()
    installation.save()
    monkeypatch.setenv("MONGODB_URL", "mongodb://127.0.0.1:1/")
    monkeypatch.setenv("MONGODB_DATABASE", "another")
    assert run("migrate", "--data", str(tmp_path / "data")).exit_code == 0
    assert read_status("--data", str(tmp_path / "data"))["up_to_date"]
    assert empty.migrations.find_one({"state": "done"}) is not None


def test_a_data_folder_with_an_embedded_mongodb_names_its_port_and_password(mongod: Mongod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MONGODB_URL", raising=False)
    installation = Installation(tmp_path, 5000, 1)
    installation.prepare()
    installation.save()
    monkeypatch.setenv("MONGODB_URL", "mongodb://127.0.0.1:1/")
    (installation.run / "ports.json").write_text(json.dumps({"mongod": mongod.port, "redis": 1}))
    refused = run("status", "--data", str(tmp_path))
    assert refused.exit_code == 2
    assert "There are no passwords" in refused.stderr
    shutil.copytree(mongod.credentials.folder, installation.secrets)
    assert "pending" in read_status("--data", str(tmp_path))


def test_a_folder_without_an_installation_is_a_usage_error(tmp_path: Path) -> None:
    result = run("status", "--data", str(tmp_path))
    assert result.exit_code == 2
    assert f"Nothing was started with the data folder {tmp_path} yet." in result.stderr


def test_sigterm_releases_the_lock(empty: Db) -> None:
    empty.images.insert_many([{"_id": f"{number:06}"} for number in range(60_000)])
    command = [sys.executable, "-m", "scripts.administration", "migrate"]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while (record := empty.migrations.find_one()) is None or not record["progress"]:
            assert time.monotonic() < deadline
        process.terminate()
        assert process.wait(60) == 128 + 15
    assert empty.leases.find_one({"_id": "migrations"}) is None
    assert read_status()["pending"] == _NAMES


@pytest.mark.parametrize("arguments", [[], ["migrate"], ["status"]])
def test_help_says_when_a_command_is_needed_and_how_it_is_run_in_containers(arguments: list[str]) -> None:
    result = run(*arguments, "--help")
    assert result.exit_code == 0
    assert "scripts" in result.stdout
    if arguments != ["status"]:
        assert "docker compose run --rm --no-deps web python -m scripts.administration" in result.stdout


def test_an_error_is_one_line_on_standard_error() -> None:
    environment = {"PYTHONPATH": str(ROOT), "MONGODB_URL": "mongodb://127.0.0.1:1/", "MONGODB_SERVER_SELECTION_TIMEOUT_S": "0.1"}
    process = subprocess.run(
        [sys.executable, "-m", "scripts.administration", "status"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 3
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1
    assert process.stderr.startswith("error: The database does not respond; retry later. Cause: ServerSelectionTimeoutError: ")
