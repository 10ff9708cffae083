"""A data folder: its lock, and the saved parameters of its start."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from scripts.local import start_checks
from scripts.local.installation import ROOT, Installation, Stage, data_folder, load_installation
from scripts.local.servers.credentials import create_credentials
from scripts.local.servers.errors import Unusable
from scripts.local.servers.programs import Program

HOLD_LOCK = """
import sys, time
from pathlib import Path
from scripts.local.installation import Installation
lock = Installation(Path(sys.argv[1]), 1, 1).acquire_lock()
print("locked" if lock else "refused", flush=True)
sys.stdin.readline()
"""
QUERY_LOCK = """
import select, sys
from pathlib import Path
from scripts.local.installation import Installation
installation = Installation(Path(sys.argv[1]), 1, 1)
print("running", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    installation.find_lock_holder()
"""


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    for name in ("MONGODB_URL", "REDIS_URL", "MONGODB_DATABASE", "BLOBS_MIN_FREE_BYTES"):
        monkeypatch.delenv(name, raising=False)
    created = Installation(tmp_path, 5000, 2)
    created.prepare()
    return created


def start_process(program: str, installation: Installation) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", program, str(installation.data)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_the_lock_holder_of_a_folder_is_found_by_its_pid_until_it_ends(installation: Installation) -> None:
    assert installation.find_lock_holder() is None
    with start_process(HOLD_LOCK, installation) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        assert installation.find_lock_holder() == other.pid
        assert installation.acquire_lock() is None
        other.kill()
    assert installation.find_lock_holder() is None


@pytest.mark.slow
def test_a_query_for_the_lock_holder_never_prevents_a_start(installation: Installation) -> None:
    (installation.run / "lock").touch()
    with start_process(QUERY_LOCK, installation) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for _ in range(20_000):
            lock = installation.acquire_lock()
            assert lock is not None
            lock.close()
        assert other.poll() is None


def test_a_start_waits_for_a_process_that_holds_the_folder_for_a_moment(installation: Installation) -> None:
    with start_process(HOLD_LOCK, installation) as other:
        assert other.stdout is not None
        other.stdout.readline()
        timer = threading.Timer(0.3, other.kill)
        timer.start()
        lock = installation.acquire_lock(timeout_s=10)
        timer.join()
    assert lock is not None
    lock.close()


def test_external_servers_are_saved_in_a_file_that_only_its_owner_reads(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URL", "mongodb://user:secret@db.example/?replicaSet=x")
    monkeypatch.setenv("REDIS_URL", "redis://:secret@cache.example/1")
    monkeypatch.setenv("BLOBS_MIN_FREE_BYTES", "12345")
    (installation.run / "house.json").write_text("{}")
    (installation.run / "house.json").chmod(0o644)
    Installation(installation.data, 5000, 2).save()
    for name in ("MONGODB_URL", "REDIS_URL", "BLOBS_MIN_FREE_BYTES"):
        monkeypatch.delenv(name)
    found = load_installation(installation.data)
    assert found is not None
    assert (found.embedded_mongodb, found.embedded_redis) == (False, False)
    assert found.variables["MONGODB_URL"] == "mongodb://user:secret@db.example/?replicaSet=x"
    assert found.variables["BLOBS_MIN_FREE_BYTES"] == "12345"
    assert (installation.run / "house.json").stat().st_mode & 0o777 == 0o600


def test_the_variables_of_the_current_shell_do_not_change_what_is_saved(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    installation.save()
    monkeypatch.setenv("MONGODB_URL", "mongodb://elsewhere/")
    found = load_installation(installation.data)
    assert found is not None
    assert (found.embedded_mongodb, found.variables) == (True, {})


def test_a_file_of_an_older_version_is_read(installation: Installation) -> None:
    (installation.run / "house.json").write_text(json.dumps({"port": 5001, "workers": 3}))
    found = load_installation(installation.data)
    assert found is not None
    assert (found.port, found.workers, found.embedded_mongodb, found.embedded_redis) == (5001, 3, True, True)


def test_a_stage_has_the_time_waited_for_one_process(installation: Installation) -> None:
    assert installation.read_stage() is None
    installation.write_stage(Stage("waiting", time.monotonic() - 100))
    stage = installation.read_stage()
    assert stage is not None
    assert stage.text == "waiting"
    assert 100 <= stage.waited_s < 160
    installation.write_stage(Stage("other"))
    assert installation.read_stage() == Stage("other")
    assert Stage("other").waited_s == 0
    installation.write_stage(None)
    assert installation.read_stage() is None


def test_a_folder_that_holds_data_is_started_below_the_watermark_with_a_warning(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    start_checks.check_disk(installation, 10**18, used=True)
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "BLOBS_MIN_FREE_BYTES" in printed


@pytest.mark.parametrize(("workers", "variable", "in_turn"), [(1, None, None), (2, None, "true"), (3, None, "true"), (2, "false", None)])
def test_workers_with_at_most_one_core_each_run_decoding_and_model_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, variable: str | None, in_turn: str | None
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.delenv("VISION_IN_TURN", raising=False)
    if variable is not None:
        monkeypatch.setenv("VISION_IN_TURN", variable)  # the processes inherit it
    installation = Installation(tmp_path, 5000, workers)
    create_credentials(installation.secrets)
    assert installation.environment({"mongod": 1, "redis": 2}).get("VISION_IN_TURN") == in_turn


def test_the_folders_are_closed_to_other_users_also_those_of_an_older_version(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "data", 5000, 1)
    for name in ("run", "mongodb", "blobs"):
        (tmp_path / "data" / name).mkdir(parents=True, mode=0o755)
    installation.save()
    installation.prepare()
    modes = {path.name: path.stat().st_mode & 0o777 for path in installation.data.iterdir()}
    assert modes == {"run": 0o700, "logs": 0o700, "mongodb": 0o700, "redis": 0o700, "blobs": 0o755}  # a file server may read the blobs
    Installation(tmp_path / "new", 5000, 1).prepare()
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o700}


def test_a_folder_of_another_program_is_not_closed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir(mode=0o755)
    Installation(tmp_path, 5000, 1).prepare()
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o755


def test_urls_of_embedded_servers_contain_the_port_and_the_password(installation: Installation) -> None:
    for read in (installation.mongodb_url, installation.redis_url):
        with pytest.raises(Unusable, match="has never been started"):
            read()
    ports = installation.assign_ports()
    for read in (installation.mongodb_url, installation.redis_url):
        with pytest.raises(Unusable, match="There are no passwords"):
            read()
    credentials = create_credentials(installation.secrets)
    assert installation.mongodb_url() == f"mongodb://shelfsight:{credentials.mongodb_password}@127.0.0.1:{ports['mongod']}/?replicaSet=shelfsight&authSource=admin"
    assert installation.redis_url() == f"redis://:{credentials.redis_password}@127.0.0.1:{ports['redis']}/0"


def test_urls_of_external_servers_are_those_of_the_variables(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URL", "mongodb://db.example/?replicaSet=x")
    monkeypatch.setenv("REDIS_URL", "rediss://cache.example/1")
    external = Installation(installation.data, 5000, 1)
    assert (external.mongodb_url(), external.redis_url()) == ("mongodb://db.example/?replicaSet=x", "rediss://cache.example/1")
    assert external.choose_programs(lambda _: None) == {}


def test_no_command_line_contains_a_password(installation: Installation) -> None:
    credentials = create_credentials(installation.secrets)
    programs = {"mongod": Program(Path("mongod"), "MongoDB", "8.0.32"), "redis": Program(Path("valkey-server"), "Valkey", "9.1.2")}
    commands = installation.commands({"mongod": 1, "redis": 2}, programs)
    text = " ".join(argument for command in commands.values() for argument in command)
    assert not [word for word in (credentials.member_key, credentials.mongodb_password, credentials.redis_password) if word in text]
    assert "snappy,zstd" in commands["mongod"]
    assert "zlib" not in text


def test_the_versions_that_were_started_are_saved(installation: Installation) -> None:
    assert installation.read_programs() == {}
    installation.save_programs({"mongod": Program(Path("mongod"), "MongoDB", "8.0.32"), "redis": Program(Path("valkey-server"), "Valkey", "9.1.2")})
    assert installation.read_programs() == {"mongod": ("MongoDB", "8.0.32"), "redis": ("Valkey", "9.1.2")}
    assert json.loads((installation.data / "mongodb/shelfsight-written-by.json").read_text()) == {"version": "8.0.32"}


def test_only_the_files_of_processes_are_removed(installation: Installation) -> None:
    ours = ["guard.pid", "supervisor.pid", "mongod.pid", "redis.pid", "web.pid", "worker-12.pid", "inspector.pid", "sweep.pid"]
    others = ["sshd.pid", "nginx.pid", "worker-x.pid", "my-web.pid", "web.starts", "lock"]
    for name in ours + others:
        (installation.run / name).touch()
    installation.remove_process_files(".pid")
    assert sorted(path.name for path in installation.run.iterdir()) == sorted(others)


def test_a_socket_is_removed_and_any_other_file_is_not(installation: Installation) -> None:
    installation.remove_socket()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(installation.socket))
        installation.remove_socket()
        assert not installation.socket.exists()
    installation.socket.write_text("somebody's own file")
    try:
        with pytest.raises(Unusable, match="is not a socket"):
            installation.remove_socket()
        assert installation.socket.read_text() == "somebody's own file"
    finally:
        installation.socket.unlink()


@pytest.mark.parametrize("name", ["new\nline", "tab\t", "esc\x1b[2J", "sep\u2028", os.fsdecode(b"caf\xe9")])
def test_a_folder_whose_name_would_break_the_logs_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(start_checks.CannotStart, match="choose another folder with --data") as refused:
        start_checks.check_paths(Installation(tmp_path / name, 5000, 1))
    assert str(refused.value).isprintable()
    assert not (tmp_path / name).exists()


def test_a_folder_in_which_another_program_keeps_its_pid_files_is_refused(tmp_path: Path) -> None:
    other = Installation(tmp_path / "var", 5000, 1)
    start_checks.check_paths(other)
    other.prepare()
    (other.run / "lock").touch()
    start_checks.check_paths(other)  # an earlier start was interrupted before it had saved anything
    (other.run / "sshd.pid").write_text("1")
    with pytest.raises(start_checks.CannotStart, match=r"sshd\.pid belongs to another program"):
        start_checks.check_paths(other)
    (other.run / "sshd.pid").unlink()
    other.save()
    (other.run / "web.pid").write_text("1")
    start_checks.check_paths(other)
    (other.run / "house.json").write_text("")  # a power failure may have emptied it
    start_checks.check_paths(other)


def test_a_loop_of_links_is_reported_when_the_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    installation = Installation(data_folder(tmp_path / "loop/data"), 5000, 1)
    with pytest.raises(OSError, match="symbolic links"):
        installation.prepare()
    assert load_installation(installation.data) is None
    (tmp_path / "file").touch()
    assert load_installation(tmp_path / "file") is None
    (tmp_path / "link").symlink_to(tmp_path)
    assert data_folder(tmp_path / "link/data") == tmp_path.resolve() / "data"
