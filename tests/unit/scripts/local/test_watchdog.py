"""The watchdog, as far as it can be tested without a running installation."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.local.installation import Installation
from scripts.local.servers.errors import Unusable
from scripts.local.watchdog import Watchdog


def test_a_supervisor_that_ended_is_not_waited_for(tmp_path: Path) -> None:
    watchdog = Watchdog(Installation(tmp_path, 1, 1))
    watchdog._supervisor = subprocess.Popen([sys.executable, "-c", ""])
    watchdog._supervisor.wait(60)
    with pytest.raises(Unusable, match="the supervisor ended while starting"):
        watchdog._pid("mongod")


def test_a_database_that_cannot_be_updated_prevents_the_start_and_the_reason_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URL", "mongodb://127.0.0.1:1/")
    monkeypatch.setenv("MONGODB_SERVER_SELECTION_TIMEOUT_S", "0.1")
    installation = Installation(tmp_path, 1, 1)
    installation.prepare()
    with pytest.raises(Unusable, match=r"updating the database failed: error: The database does not respond.* Cause: "):
        Watchdog(installation)._migrate()
    stage = installation.read_stage()
    assert stage is not None
    assert stage.text.startswith("Updating the database: error: ")
    assert stage.since is not None  # the time limit of the start does not include this wait


@pytest.mark.parametrize(("url", "finishes"), [(None, True), ("mongodb://db.example/", False)])
def test_only_the_update_of_its_own_mongodb_is_finished_because_others_may_have_further_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str | None, finishes: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    if url is None:
        monkeypatch.delenv("MONGODB_URL", raising=False)
    else:
        monkeypatch.setenv("MONGODB_URL", url)
    arguments = tmp_path / "arguments"
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\necho "$@" > {arguments}\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    installation = Installation(tmp_path / "data", 1, 1)
    installation.prepare()
    Watchdog(installation)._migrate()
    assert arguments.read_text().split() == ["-m", "scripts.administration", "migrate", *(["--finish"] if finishes else [])]
