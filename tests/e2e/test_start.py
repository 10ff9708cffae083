"""``scripts/start``: what dies comes back, the supervisor too; however it ends, nothing is left; a second one says that it runs."""

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from scripts.local import embedded
from scripts.local.house import ROOT
from tests.servers import Mongod, RedisServer, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
MIB = 1024 * 1024


def wait_until_ready(stack: Stack, limit_s: float = 60.0) -> None:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        try:
            if httpx.get(f"{stack.url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise AssertionError("not ready")


def wait_for_another(stack: Stack, name: str, old: int) -> int:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if (pid := stack.pid(name)) != old:
            return pid
        time.sleep(0.1)
    raise AssertionError(f"{name} did not come back")


def script(name: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", f"scripts.local.{name}", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def until(found: Callable[[], object], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not found():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


class Front:
    """A running ``scripts/start`` over a folder of its own, and all the processes that it was ever seen to have."""

    def __init__(self, folder: Path, *arguments: str, limit_s: float = 240.0) -> None:
        folder.mkdir()
        self.data = folder / "data"
        self.port = embedded.free_port()
        self.out, self.err = folder / "out", folder / "err"
        self.seen: set[psutil.Process] = set()
        program = f"from scripts.local import start; start.READY_LIMIT_S = {limit_s}; start.main()"
        self.command = [sys.executable, "-c", program, "--data", str(self.data), "--port", str(self.port), "--workers", "1", *arguments]
        self.environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "subprocess.Popen[bytes]":
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(self.command, cwd=ROOT, env=self.environment, stdout=out, stderr=err)
        return self.process

    def start_in_a_terminal(self) -> tuple["subprocess.Popen[bytes]", int]:
        master, slave = pty.openpty()
        command = ["setsid", "--ctty", *self.command]
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        return self.process, master

    def wait_for(self, name: str) -> int:
        """Wait until a process of it is on file, by its own account."""
        file = self.data / "run" / f"{name}.pid"
        until(lambda: file.exists() and file.read_text().strip())
        self.look()
        return int(file.read_text())

    def wait_until_ready(self) -> None:
        until(lambda: b"Shelfsight runs at" in self.out.read_bytes(), 120)
        self.look()

    def look(self) -> None:
        """Note the processes that there are."""
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            self.seen.update(psutil.Process(self.process.pid).children(recursive=True))

    def assert_that_nothing_is_left(self, within_s: float = 5.0) -> None:
        assert self.seen
        until(lambda: not any(process.is_running() for process in self.seen), within_s)
        assert embedded.is_free(self.port)
        assert "Nothing runs" in script("stop", "--data", str(self.data)).stdout

    def remove(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)
        for process in self.seen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Callable[..., Front]]:
    made: list[Front] = []

    def make(*arguments: str, limit_s: float = 240.0) -> Front:
        made.append(Front(tmp_path / f"front-{len(made)}", *arguments, limit_s=limit_s))
        return made[-1]

    yield make
    for one in made:
        one.remove()


@pytest.mark.parametrize("name", ["web", "worker-1", "sweep", "redis", "mongod", "supervisor"])
def test_a_killed_process_comes_back_with_its_pid_on_file(stack: Stack, name: str) -> None:
    old = stack.kill(name)
    new = wait_for_another(stack, name, old)
    wait_until_ready(stack)
    assert Path(f"/proc/{new}/cmdline").read_bytes()


def test_no_process_outlives_a_killed_supervisor(stack: Stack) -> None:
    names = ["mongod", "redis", "web", "worker-1", "sweep"]
    before = {name: stack.pid(name) for name in names}
    stack.kill("supervisor")
    after = {name: wait_for_another(stack, name, before[name]) for name in names}
    wait_until_ready(stack)
    assert not set(before.values()) & set(after.values())
    for pid in before.values():
        assert not Path(f"/proc/{pid}").exists()


def test_a_second_start_over_the_same_folder_says_that_it_runs(stack: Stack) -> None:
    again = script("start", "--detach", "--data", str(stack.data), "--port", "1")
    assert again.returncode == 1
    assert "runs already" in again.stderr
    assert stack.url in again.stderr


def test_a_taken_port_is_one_line_with_its_remedy(stack: Stack, tmp_path: Path) -> None:
    refused = script("start", "--detach", "--data", str(tmp_path), "--port", str(stack.port))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "--port" in refused.stderr


def test_everything_listens_on_loopback_only(stack: Stack) -> None:
    listening = "0A"
    mine = {stack.port, int(stack.mongo_url.split(":")[2].split("/")[0]), int(stack.redis_url.split(":")[2].split("/")[0])}
    addresses = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, port = local.split(":")
            if state == listening and int(port, 16) in mine:
                addresses.add(address)
    assert addresses == {"0100007F"}


def test_nothing_runs_over_a_folder_that_was_never_started(tmp_path: Path) -> None:
    assert "Nothing runs" in script("stop", "--data", str(tmp_path)).stdout


def test_status_names_every_process_and_what_waits(stack: Stack) -> None:
    wait_until_ready(stack)
    said = script("status", "--data", str(stack.data), "--json")
    assert said.returncode == 0, said.stdout + said.stderr
    found = json.loads(said.stdout)
    assert found["running"]
    assert found["not_ready"] == {}
    running = {process["name"]: process["pid"] for process in found["processes"]}
    assert set(running) == {"supervisor", "mongod", "redis", "web", "worker-1", "sweep"}
    assert all(stack.pid(name) == pid for name, pid in running.items())
    assert found["external"] == []
    assert found["disk_free"] == pytest.approx(shutil.disk_usage(stack.data).free, abs=256 * MIB)
    assert found["disk_watermark"] == 1024 * MIB


def test_status_counts_what_was_received(stack: Stack) -> None:
    wait_until_ready(stack)
    before = ledger(stack.data)
    assert send_a_picture(stack.url) == 202
    until(lambda: ledger(stack.data)["done"] > before["done"])
    assert ledger(stack.data) == before | {"received": before["received"] + 1, "done": before["done"] + 1}


def ledger(data: Path) -> dict[str, int]:
    counts: dict[str, int] = json.loads(script("status", "--data", str(data), "--json").stdout)["ledger"]
    return counts


def send_a_picture(url: str) -> int:
    about = [{"timestamp": "2026-01-15T09:00:00Z", "store_name": "status", "camera_id": "cam-1"}]
    picture = (ROOT / "samples/shelf-01.jpg").read_bytes()
    return httpx.post(f"{url}/upload_image_batch", data={"metadata": json.dumps(about)}, files={"file": picture}, timeout=30).status_code


def test_status_counts_restarts(stack: Stack) -> None:
    wait_until_ready(stack)
    before = restarts(stack, "sweep")
    wait_for_another(stack, "sweep", stack.kill("sweep"))
    assert restarts(stack, "sweep") == before + 1


def restarts(stack: Stack, name: str) -> int:
    found = json.loads(script("status", "--data", str(stack.data), "--json").stdout)
    counts: dict[str, int] = {process["name"]: process["restarts"] for process in found["processes"]}
    return counts[name]


def test_status_without_a_start_says_what_to_do(tmp_path: Path) -> None:
    refused = script("status", "--data", str(tmp_path))
    assert refused.returncode != 0
    assert "scripts/start" in refused.stderr


def test_a_folder_whose_guard_was_killed_starts_clean(tmp_path: Path) -> None:
    crashed = Stack(tmp_path / "data")
    try:
        crashed.start()
        crashed.kill("guard")
        crashed.start()
        wait_until_ready(crashed)
    finally:
        crashed.stop()
    assert not list((tmp_path / "data/run").glob("*.pid"))


def test_servers_of_ones_own_are_used_shown_and_left_alone(front: Callable[..., Front], tmp_path: Path) -> None:
    mongod, redis = Mongod(tmp_path / "mongo/data"), RedisServer(tmp_path / "redis/data")
    one = front("--detach")
    one.environment |= {"MONGODB_URL": mongod.url, "REDIS_URL": redis.url, "MONGODB_DATABASE": "theirs"}
    try:
        mongod.start()
        redis.start()
        assert one.start().wait(120) == 0, one.err.read_text()
        for name in ("web", "worker-1", "sweep", "guard", "supervisor"):
            one.seen.add(psutil.Process(one.wait_for(name)))
        assert not [name for name in ("mongod", "redis") if (one.data / "run" / f"{name}.pid").exists()]
        assert send_a_picture(f"http://127.0.0.1:{one.port}") == 202
        until(lambda: ledger(one.data)["done"] == 1)
        said = script("status", "--data", str(one.data), "--json")
        found = json.loads(said.stdout)
        assert (said.returncode, found["not_ready"], found["advice"]) == (0, {}, [])
        assert found["external"] == ["MONGODB_URL", "REDIS_URL"]
        assert [process["name"] for process in found["processes"]] == ["supervisor", "web", "worker-1", "sweep"]
        assert all(process["pid"] for process in found["processes"])
        assert found["backlog"] == {"images": 0, "bytes": 0, "oldest_age_s": 0.0}
        assert found["ledger"]["received"] == 1
        shown = script("status", "--data", str(one.data)).stdout
        assert "MONGODB_URL and REDIS_URL" in shown
        assert mongod.url not in shown + said.stdout
        assert redis.url not in shown + said.stdout
        script("stop", "--data", str(one.data))
        one.assert_that_nothing_is_left()
        embedded.wait_for_mongod(mongod.port, mongod.pid)
        embedded.wait_for_redis(redis.port, redis.pid)
    finally:
        script("stop", "--data", str(one.data))
        mongod.remove()
        redis.remove()


def test_ctrl_c_in_the_foreground_ends_everything_in_order(front: Callable[..., Front]) -> None:
    one = front()
    process = one.start()
    one.wait_until_ready()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
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
    assert process.wait(10) == 0
    assert one.err.read_text().splitlines()[-1] == "Stopped from elsewhere (scripts/stop)."
    one.assert_that_nothing_is_left()


@pytest.mark.parametrize(("how", "mode"), [(signal.SIGINT, ["--detach"]), (signal.SIGTERM, []), (signal.SIGHUP, ["--detach"])])
def test_a_start_that_is_interrupted_before_it_is_ready_leaves_nothing(
    front: Callable[..., Front], how: signal.Signals, mode: list[str]
) -> None:
    one = front(*mode)
    process = one.start()
    one.wait_for("mongod")
    process.send_signal(how)
    assert process.wait(60) == 128 + how
    assert one.err.read_text().splitlines()[-1] == "error: interrupted before it was ready; nothing is left running"
    one.assert_that_nothing_is_left()


@pytest.mark.parametrize("mode", [[], ["--detach"]])
def test_a_start_that_is_killed_before_it_is_ready_takes_everything_with_it(front: Callable[..., Front], mode: list[str]) -> None:
    one = front(*mode)
    process = one.start()
    one.wait_for("mongod")
    process.kill()
    process.wait(10)
    one.assert_that_nothing_is_left(within_s=60)


def test_a_terminal_that_is_closed_ends_everything_in_order(front: Callable[..., Front]) -> None:
    one = front()
    process, terminal = one.start_in_a_terminal()
    one.wait_for("mongod")
    os.close(terminal)
    assert process.wait(60) == 128 + signal.SIGHUP
    one.assert_that_nothing_is_left()
    assert not list((one.data / "run").glob("*.pid"))


@pytest.mark.parametrize("mode", [[], ["--detach"]])
def test_a_start_that_is_not_ready_in_time_says_so_and_leaves_nothing(front: Callable[..., Front], mode: list[str]) -> None:
    one = front(*mode, limit_s=3)
    process = one.start()
    one.wait_for("mongod")
    assert process.wait(90) == 1
    said = one.err.read_text().splitlines()[-1]
    assert said.startswith("error: it was not ready after ")
    assert "has been stopped" in said
    one.assert_that_nothing_is_left()


def test_a_server_that_recovers_is_waited_for_beyond_the_limit(front: Callable[..., Front]) -> None:
    one = front("--detach", limit_s=10)
    process = one.start()
    mongod = one.wait_for("mongod")
    os.kill(mongod, signal.SIGSTOP)
    until(lambda: f"Waiting for MongoDB (pid {mongod})" in one.err.read_text())
    assert f"waiting for MongoDB (pid {mongod})" in (one.data / "logs/guard.log").read_text()
    time.sleep(12)
    assert process.poll() is None
    assert "It is starting: Waiting for MongoDB" in script("status", "--data", str(one.data)).stdout
    os.kill(mongod, signal.SIGCONT)
    until(lambda: "MongoDB is ready" in (one.data / "logs/guard.log").read_text())
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    one.assert_that_nothing_is_left()


def test_too_little_disk_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    port = str(embedded.free_port())
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
    processes = [one.start() for one in fronts]
    until(lambda: any(process.poll() is not None for process in processes))
    lost = next(place for place, process in enumerate(processes) if process.poll() is not None)
    assert processes[lost].returncode == 1
    assert "runs already" in fronts[lost].err.read_text().splitlines()[-1]
    won = fronts[1 - lost]
    won.look()
    processes[1 - lost].send_signal(signal.SIGINT)
    assert processes[1 - lost].wait(60) == 130
    won.assert_that_nothing_is_left()
