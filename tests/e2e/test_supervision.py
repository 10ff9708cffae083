"""Killed processes are restarted, the supervisor too, and write their pid files; all processes listen on loopback only."""

from pathlib import Path

import pytest

from tests.e2e.installations import wait_for_new_pid, wait_until_ready
from tests.support.service_stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.mark.parametrize("name", ["web", "worker-1", "inspector", "jobs", "sweep", "redis", "mongod"])
def test_a_killed_process_is_restarted_and_writes_its_pid_file(stack: Stack, name: str) -> None:
    old_pid = stack.kill(name)
    new_pid = wait_for_new_pid(stack, name, old_pid)
    wait_until_ready(stack)
    assert Path(f"/proc/{new_pid}/cmdline").read_bytes()


def test_no_process_outlives_a_killed_supervisor_and_a_supervisor_killed_while_it_starts_delays_nothing(stack: Stack) -> None:
    names = ["mongod", "redis", "web", "worker-1", "inspector", "jobs", "sweep"]
    before = {name: stack.pid(name) for name in names}
    log_length = len(stack.watchdog_log())
    first = stack.kill("supervisor")
    wait_for_new_pid(stack, "supervisor", first)
    second = stack.kill("supervisor")  # its pid file exists before it runs, so it has started no process yet
    after = {name: wait_for_new_pid(stack, name, before[name]) for name in names}
    wait_for_new_pid(stack, "supervisor", second)
    wait_until_ready(stack)
    assert not set(before.values()) & set(after.values())
    for pid in before.values():
        assert not Path(f"/proc/{pid}").exists()
    assert "was not started" not in stack.watchdog_log()[log_length:]  # the watchdog logs this when it has waited in vain


def test_a_start_succeeds_after_the_watchdog_was_killed(tmp_path: Path) -> None:
    crashed = Stack(tmp_path / "data")
    try:
        crashed.start()
        crashed.kill("guard")
        crashed.start()
        wait_until_ready(crashed)
    finally:
        crashed.stop()
    assert not list((tmp_path / "data/run").glob("*.pid"))


def test_all_processes_listen_on_loopback_only(stack: Stack) -> None:
    listening = "0A"
    ports = {stack.port, *stack.installation.read_ports().values()}
    addresses = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, port = local.split(":")
            if state == listening and int(port, 16) in ports:
                addresses.add(address)
    assert addresses == {"0100007F"}
