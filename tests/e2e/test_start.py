"""``scripts/start``: however it ends, nothing is left; what it cannot do is one line; a second one says that it runs."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from scripts.local import embedded_servers
from scripts.local.temporary_servers import Mongod, RedisServer
from tests.e2e.installations import Front, ledger, script, send_a_picture, status
from tests.support.service_stack import Stack, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Callable[..., Front]]:
    made: list[Front] = []

    def make(*arguments: str, limit_s: float = 240.0) -> Front:
        made.append(Front(tmp_path / f"front-{len(made)}", *arguments, limit_s=limit_s))
        return made[-1]

    yield make
    for one in made:
        one.remove()


def test_a_second_start_over_the_same_folder_says_that_it_runs(stack: Stack) -> None:
    again = script("start", "--detach", "--data", str(stack.data), "--port", "1")
    assert again.returncode == 1
    assert "already running" in again.stderr
    assert stack.url in again.stderr


def test_a_taken_port_is_one_line_with_its_remedy(stack: Stack, tmp_path: Path) -> None:
    refused = script("start", "--detach", "--data", str(tmp_path), "--port", str(stack.port))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "--port" in refused.stderr


def test_servers_of_ones_own_are_used_shown_and_left_alone(front: Callable[..., Front], tmp_path: Path) -> None:
    mongod, redis = Mongod(tmp_path / "mongo/data"), RedisServer(tmp_path / "redis/data")
    one = front("--detach")
    one.environment |= {"MONGODB_URL": mongod.url, "REDIS_URL": redis.url, "MONGODB_DATABASE": "theirs"}
    try:
        mongod.start()
        redis.start()
        assert one.start().wait(300) == 0, one.err.read_text()
        for name in ("web", "worker-1", "inspector", "sweep", "guard", "supervisor"):
            one.seen.add(psutil.Process(one.wait_for(name)))
        assert not [name for name in ("mongod", "redis") if (one.data / "run" / f"{name}.pid").exists()]
        assert send_a_picture(f"http://127.0.0.1:{one.port}") == 202
        until(lambda: ledger(one.data)["done"] == 1, 240)
        said = status(one.data)
        found = json.loads(said.stdout)
        assert (said.returncode, found["not_ready"], found["advice"]) == (0, {}, [])
        assert found["external"] == ["MONGODB_URL", "REDIS_URL"]
        assert [process["name"] for process in found["processes"]] == ["supervisor", "web", "worker-1", "inspector", "sweep"]
        assert all(process["pid"] for process in found["processes"])
        assert found["backlog"] == {"images": 0, "bytes": 0, "oldest_age_s": 0.0}
        assert found["ledger"]["received"] == 1
        shown = script("status", "--data", str(one.data)).stdout
        assert "MONGODB_URL and REDIS_URL" in shown
        assert mongod.url not in shown + said.stdout
        assert redis.url not in shown + said.stdout
        script("stop", "--data", str(one.data))
        one.assert_that_nothing_is_left()
        embedded_servers.wait_for_mongod(mongod.port, mongod.pid)
        embedded_servers.wait_for_redis(redis.port, redis.pid)
    finally:
        script("stop", "--data", str(one.data))
        mongod.remove()
        redis.remove()


def test_ctrl_c_in_the_foreground_ends_everything_in_order(front: Callable[..., Front]) -> None:
    one = front()
    process = one.start()
    one.wait_until_ready()
    process.send_signal(signal.SIGINT)
    assert process.wait(240) == 0
    assert one.err.read_text().splitlines()[-1] == "Stopped."
    one.assert_that_nothing_is_left()
    assert "web" in {path.stem for path in (one.data / "run").glob("*.starts")}
    assert not list((one.data / "run").glob("*.pid"))
    assert '"Now exiting"' in (one.data / "logs/mongod.log").read_text()


def test_a_stop_from_elsewhere_ends_a_start_in_the_foreground_well(front: Callable[..., Front]) -> None:
    one = front()
    process = one.start()
    one.wait_until_ready()
    assert script("stop", "--data", str(one.data)).stdout == "Stopped.\n"
    assert process.wait(60) == 0
    assert one.err.read_text().splitlines()[-1] == "Stopped by another process (scripts/stop or a signal)."
    one.assert_that_nothing_is_left()


@pytest.mark.parametrize(("how", "mode"), [(signal.SIGINT, ["--detach"]), (signal.SIGTERM, []), (signal.SIGHUP, ["--detach"])])
def test_a_start_that_is_interrupted_before_it_is_ready_leaves_nothing(
    front: Callable[..., Front], how: signal.Signals, mode: list[str]
) -> None:
    one = front(*mode)
    process = one.start()
    one.wait_for("mongod")
    process.send_signal(how)
    assert process.wait(240) == 128 + how
    assert one.err.read_text().splitlines()[-1] == "error: interrupted before it was ready; nothing is left running"
    one.assert_that_nothing_is_left()


@pytest.mark.parametrize("mode", [[], ["--detach"]])
def test_a_start_that_is_killed_before_it_is_ready_takes_everything_with_it(front: Callable[..., Front], mode: list[str]) -> None:
    one = front(*mode)
    process = one.start()
    one.wait_for("mongod")
    process.kill()
    process.wait(60)
    one.assert_that_nothing_is_left(within_s=240)


def test_a_terminal_that_is_closed_ends_everything_in_order(front: Callable[..., Front]) -> None:
    one = front()
    process, terminal = one.start_in_a_terminal()
    one.wait_for("mongod")
    os.close(terminal)
    assert process.wait(240) == 128 + signal.SIGHUP
    one.assert_that_nothing_is_left()
    assert not list((one.data / "run").glob("*.pid"))


@pytest.mark.parametrize("mode", [[], ["--detach"]])
def test_a_start_that_is_not_ready_in_time_says_so_and_leaves_nothing(front: Callable[..., Front], mode: list[str]) -> None:
    one = front(*mode, limit_s=3)
    process = one.start()
    end = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < end:
        one.look()  # a slow machine may not even have a pid on file in so short a time
        time.sleep(0.05)
    assert process.poll() == 1
    said = one.err.read_text().splitlines()[-1]
    assert said.startswith("error: Shelfsight was not ready after ")
    assert "has been stopped" in said
    one.assert_that_nothing_is_left()


def test_a_model_that_cannot_be_used_ends_the_start_with_its_name_and_leaves_nothing(front: Callable[..., Front]) -> None:
    one = front("--detach")
    one.environment["VISION_MODEL"] = "groceries"
    process = one.start()
    one.wait_for("worker-1")
    assert process.wait(240) == 1
    said = one.err.read_text().splitlines()[-1]
    assert said.startswith("error: VISION_MODEL cannot be used: Unknown model 'groceries'. Use one of grocery, ")
    assert "worker-1.log" in said
    log = (one.data / "logs/worker-1.log").read_text()
    assert '"process": "worker-1", "message": "no model: ' in log
    assert "Traceback" not in log
    one.assert_that_nothing_is_left()


def test_a_server_that_recovers_is_waited_for_beyond_the_limit(front: Callable[..., Front]) -> None:
    one = front("--detach", limit_s=12)
    process = one.start()
    mongod = one.wait_for("mongod")
    os.kill(mongod, signal.SIGSTOP)
    until(lambda: f"Waiting for MongoDB (pid {mongod})" in one.err.read_text(), 240)
    assert f"waiting for MongoDB (pid {mongod})" in (one.data / "logs/guard.log").read_text()
    time.sleep(12)
    assert process.poll() is None
    assert "It is starting: Waiting for MongoDB" in script("status", "--data", str(one.data)).stdout
    os.kill(mongod, signal.SIGCONT)
    until(lambda: "MongoDB is ready" in (one.data / "logs/guard.log").read_text(), 240)
    process.send_signal(signal.SIGINT)
    assert process.wait(240) == 130
    one.assert_that_nothing_is_left()


def test_too_little_disk_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    port = str(embedded_servers.free_port())
    refused = script("start", "--detach", "--data", str(tmp_path / "data"), "--port", port, BLOBS_MIN_FREE_BYTES=str(10**18))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "BLOBS_MIN_FREE_BYTES" in refused.stderr
    assert not (tmp_path / "data/logs/guard.log").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = script("start", "--detach", "--data", str(tmp_path / "file/data"))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "--data" in refused.stderr


def test_a_setting_that_is_wrong_is_one_line(tmp_path: Path) -> None:
    refused = script("start", "--detach", "--data", str(tmp_path / "data"), BLOBS_MIN_FREE_BYTES="much")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "min_free_bytes" in refused.stderr


def test_of_two_starts_at_once_one_says_that_it_runs(front: Callable[..., Front]) -> None:
    fronts = [front("--detach"), front("--detach")]
    fronts[1].command[fronts[1].command.index("--data") + 1] = str(fronts[0].data)
    fronts[1].data = fronts[0].data
    processes = [one.start() for one in fronts]
    until(lambda: any(process.poll() is not None for process in processes), 240)
    lost = next(place for place, process in enumerate(processes) if process.poll() is not None)
    assert processes[lost].returncode == 1
    assert "already running" in fronts[lost].err.read_text().splitlines()[-1]
    won = fronts[1 - lost]
    won.look()
    processes[1 - lost].send_signal(signal.SIGINT)
    assert processes[1 - lost].wait(240) == 130
    won.assert_that_nothing_is_left()
