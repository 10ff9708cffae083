"""What dies comes back, the supervisor too, with its pid on file; and everything listens on loopback only."""

from pathlib import Path

import pytest

from tests.e2e.installations import wait_for_new_pid, wait_until_ready
from tests.support.service_stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.mark.parametrize("name", ["web", "worker-1", "inspector", "sweep", "redis", "mongod"])
def test_a_killed_process_comes_back_with_its_pid_on_file(stack: Stack, name: str) -> None:
    old = stack.kill(name)
    new = wait_for_new_pid(stack, name, old)
    wait_until_ready(stack)
    assert Path(f"/proc/{new}/cmdline").read_bytes()


def test_no_process_outlives_a_killed_supervisor_and_one_killed_while_it_starts_holds_nothing_up(stack: Stack) -> None:
    names = ["mongod", "redis", "web", "worker-1", "inspector", "sweep"]
    before = {name: stack.pid(name) for name in names}
    said = len(stack.watchdog_log())
    first = stack.kill("supervisor")
    wait_for_new_pid(stack, "supervisor", first)
    second = stack.kill("supervisor")  # its pid is on file before it has begun: it has started nothing
    after = {name: wait_for_new_pid(stack, name, before[name]) for name in names}
    wait_for_new_pid(stack, "supervisor", second)
    wait_until_ready(stack)
    assert not set(before.values()) & set(after.values())
    for pid in before.values():
        assert not Path(f"/proc/{pid}").exists()
    assert "was not started" not in stack.watchdog_log()[said:]  # the guard's word when it has waited in vain


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
