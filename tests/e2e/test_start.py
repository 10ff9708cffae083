"""``scripts/start``: no process is left however it ends, an error is one line, and a second start reports the running one."""

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from scripts.local.installation import ROOT
from scripts.local.servers.ports import free_port
from scripts.local.temporary_servers import Mongod, RedisServer
from tests.e2e.installations import StartCommand, read_ledger, read_status, run_script, upload_sample
from tests.support.service_stack import Stack, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def make_command(tmp_path: Path) -> Iterator[Callable[..., StartCommand]]:
    commands: list[StartCommand] = []

    def make(*arguments: str, limit_s: float = 240.0) -> StartCommand:
        commands.append(StartCommand(tmp_path / f"start-{len(commands)}", *arguments, limit_s=limit_s))
        return commands[-1]

    yield make
    for command in commands:
        command.remove()


def test_a_second_start_with_the_same_folder_reports_the_running_one(stack: Stack) -> None:
    second = run_script("start", "--detach", "--data", str(stack.data), "--port", "1")
    assert second.returncode == 1
    assert "already running" in second.stderr
    assert stack.url in second.stderr


def test_a_port_in_use_is_one_line_that_names_the_option(stack: Stack, tmp_path: Path) -> None:
    refused = run_script("start", "--detach", "--data", str(tmp_path), "--port", str(stack.port))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "--port" in refused.stderr


def test_a_folder_may_have_any_name_and_a_proxy_in_the_environment_is_not_asked(tmp_path: Path) -> None:
    """The printed command stops it, and files beside the folder are left alone."""
    data = tmp_path / "100% ours ;theirs #'x' \"y\" $HOME \\ 😀"
    beside = [tmp_path / "100%", tmp_path / "100% ours", tmp_path / "100% ours ;theirs"]
    for file in beside:
        file.write_text("somebody's own file")
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"), "http://127.0.0.1:9") | {"no_proxy": "", "NO_PROXY": ""}
    port = str(free_port())
    started = run_script("start", "--detach", "--data", str(data), "--port", port, "--workers", "1", **proxies)
    try:
        assert started.returncode == 0, started.stderr
        assert run_script("status", "--data", str(data), **proxies).returncode == 0
    finally:
        stop = next((line.partition("scripts/stop")[2] for line in started.stdout.splitlines() if "scripts/stop" in line), f" --data {shlex.quote(str(data))}")
        stopped = subprocess.run(["sh", "-c", f"scripts/stop {stop}"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (stopped.returncode, stopped.stdout) == (0, "Stopped.\n"), stopped.stderr
    assert sorted(tmp_path.iterdir()) == sorted([data, *beside])
    assert all(file.read_text() == "somebody's own file" for file in beside)


def test_external_servers_are_used_shown_and_not_stopped(make_command: Callable[..., StartCommand], tmp_path: Path) -> None:
    mongod, redis = Mongod(tmp_path / "mongo/data"), RedisServer(tmp_path / "redis/data")
    command = make_command("--detach")
    command.environment |= {"MONGODB_URL": mongod.url, "REDIS_URL": redis.url, "MONGODB_DATABASE": "external"}
    try:
        mongod.start()
        redis.start()
        assert command.start().wait(300) == 0, command.err.read_text()
        for name in ("web", "worker-1", "inspector", "jobs", "sweep", "guard", "supervisor"):
            command.processes.add(psutil.Process(command.wait_for(name)))
        assert not [name for name in ("mongod", "redis") if (command.data / "run" / f"{name}.pid").exists()]
        assert upload_sample(f"http://127.0.0.1:{command.port}") == 202
        wait_until(lambda: read_ledger(command.data)["done"] == 1, 240)
        completed = read_status(command.data)
        found = json.loads(completed.stdout)
        assert (completed.returncode, found["not_ready"], found["advice"]) == (0, {}, [])
        assert found["external"] == ["MONGODB_URL", "REDIS_URL"]
        assert [process["name"] for process in found["processes"]] == ["supervisor", "web", "worker-1", "inspector", "jobs", "sweep"]
        assert all(process["pid"] for process in found["processes"])
        assert found["backlog"] == {"images": 0, "bytes": 0, "oldest_age_s": 0.0}
        assert found["ledger"]["received"] == 1
        shown = run_script("status", "--data", str(command.data)).stdout
        assert "MONGODB_URL and REDIS_URL" in shown
        assert mongod.url not in shown + completed.stdout
        assert redis.url not in shown + completed.stdout
        run_script("stop", "--data", str(command.data))
        command.assert_nothing_is_left()
        mongod.wait_until_ready()
        redis.wait_until_ready()
    finally:
        run_script("stop", "--data", str(command.data))
        mongod.remove()
        redis.remove()


def test_ctrl_c_in_the_foreground_stops_everything_in_order(make_command: Callable[..., StartCommand]) -> None:
    command = make_command()
    process = command.start()
    command.wait_until_ready()
    process.send_signal(signal.SIGINT)
    assert process.wait(240) == 0
    assert command.err.read_text().splitlines()[-1] == "Stopped."
    command.assert_nothing_is_left()
    assert "web" in {path.stem for path in (command.data / "run").glob("*.starts")}
    assert not list((command.data / "run").glob("*.pid"))
    assert '"Now exiting"' in (command.data / "logs/mongod.log").read_text()


def test_scripts_stop_ends_a_start_in_the_foreground(make_command: Callable[..., StartCommand]) -> None:
    command = make_command()
    process = command.start()
    command.wait_until_ready()
    assert run_script("stop", "--data", str(command.data)).stdout == "Stopped.\n"
    assert process.wait(60) == 0
    assert command.err.read_text().splitlines()[-1] == "Stopped by another process (scripts/stop or a signal)."
    command.assert_nothing_is_left()


@pytest.mark.parametrize(("signal_number", "mode"), [(signal.SIGINT, ["--detach"]), (signal.SIGTERM, []), (signal.SIGHUP, ["--detach"])])
def test_a_start_that_is_interrupted_before_it_is_ready_leaves_no_process(
    make_command: Callable[..., StartCommand], signal_number: signal.Signals, mode: list[str]
) -> None:
    command = make_command(*mode)
    process = command.start()
    command.wait_for("mongod")
    process.send_signal(signal_number)
    assert process.wait(240) == 128 + signal_number
    assert command.err.read_text().splitlines()[-1] == "error: interrupted before Shelfsight was ready; no process is left running"
    command.assert_nothing_is_left()


@pytest.mark.parametrize("mode", [[], ["--detach"]])
def test_a_start_that_is_killed_before_it_is_ready_leaves_no_process(make_command: Callable[..., StartCommand], mode: list[str]) -> None:
    command = make_command(*mode)
    process = command.start()
    command.wait_for("mongod")
    process.kill()
    process.wait(60)
    command.assert_nothing_is_left(within_s=240)


def test_a_closed_terminal_stops_everything_in_order(make_command: Callable[..., StartCommand]) -> None:
    command = make_command()
    process, terminal = command.start_in_a_terminal()
    command.wait_for("mongod")
    os.close(terminal)
    assert process.wait(240) == 128 + signal.SIGHUP
    command.assert_nothing_is_left()
    assert not list((command.data / "run").glob("*.pid"))


@pytest.mark.parametrize("mode", [[], ["--detach"]])
def test_a_start_that_is_not_ready_in_time_reports_it_and_leaves_no_process(make_command: Callable[..., StartCommand], mode: list[str]) -> None:
    command = make_command(*mode, limit_s=3)
    process = command.start()
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        command.record_processes()  # on a slow machine no pid file may exist in so short a time
        time.sleep(0.05)
    assert process.poll() == 1
    last_line = command.err.read_text().splitlines()[-1]
    assert last_line.startswith("error: Shelfsight was not ready after ")
    assert "has been stopped" in last_line
    command.assert_nothing_is_left()


def test_an_unusable_model_ends_the_start_with_its_name_and_leaves_no_process(make_command: Callable[..., StartCommand]) -> None:
    command = make_command("--detach")
    command.environment["VISION_MODEL"] = "groceries"
    process = command.start()
    command.wait_for("worker-1")
    assert process.wait(240) == 1
    last_line = command.err.read_text().splitlines()[-1]
    assert last_line.startswith("error: VISION_MODEL cannot be used: Unknown model 'groceries'. Use one of grocery, ")
    assert "worker-1.log" in last_line
    log = (command.data / "logs/worker-1.log").read_text()
    assert '"process": "worker-1", "message": "no model: ' in log
    assert "Traceback" not in log
    command.assert_nothing_is_left()


def test_a_start_waits_beyond_its_limit_for_a_server_that_recovers(make_command: Callable[..., StartCommand]) -> None:
    command = make_command("--detach", limit_s=12)
    process = command.start()
    mongod = command.wait_for("mongod")
    os.kill(mongod, signal.SIGSTOP)
    wait_until(lambda: f"Waiting for MongoDB (pid {mongod})" in command.err.read_text(), 240)
    assert f"waiting for MongoDB (pid {mongod})" in (command.data / "logs/guard.log").read_text()
    time.sleep(12)
    assert process.poll() is None
    assert "Shelfsight is starting: Waiting for MongoDB" in run_script("status", "--data", str(command.data)).stdout
    os.kill(mongod, signal.SIGCONT)
    wait_until(lambda: "MongoDB is ready" in (command.data / "logs/guard.log").read_text(), 240)
    process.send_signal(signal.SIGINT)
    assert process.wait(240) == 130
    command.assert_nothing_is_left()


def test_too_little_free_disk_space_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    port = str(free_port())
    refused = run_script("start", "--detach", "--data", str(tmp_path / "data"), "--port", port, BLOBS_MIN_FREE_BYTES=str(10**18))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "BLOBS_MIN_FREE_BYTES" in refused.stderr
    assert not (tmp_path / "data/logs/guard.log").exists()


def test_a_folder_that_cannot_be_created_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = run_script("start", "--detach", "--data", str(tmp_path / "file/data"))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "--data" in refused.stderr


def test_an_invalid_setting_is_one_line(tmp_path: Path) -> None:
    refused = run_script("start", "--detach", "--data", str(tmp_path / "data"), BLOBS_MIN_FREE_BYTES="much")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "BLOBS_MIN_FREE_BYTES" in refused.stderr


def test_of_two_simultaneous_starts_one_reports_that_the_other_runs(make_command: Callable[..., StartCommand]) -> None:
    commands = [make_command("--detach"), make_command("--detach")]
    commands[1].arguments[commands[1].arguments.index("--data") + 1] = str(commands[0].data)
    commands[1].data = commands[0].data
    processes = [command.start() for command in commands]
    wait_until(lambda: any(process.poll() is not None for process in processes), 240)
    failed = next(index for index, process in enumerate(processes) if process.poll() is not None)
    assert processes[failed].returncode == 1
    assert "already running" in commands[failed].err.read_text().splitlines()[-1]
    running = commands[1 - failed]
    running.record_processes()
    processes[1 - failed].send_signal(signal.SIGINT)
    assert processes[1 - failed].wait(240) == 130
    running.assert_nothing_is_left()
