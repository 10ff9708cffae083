"""Tests of how the sandbox child can end, and of what each end means for the image."""

import itertools
import signal
import sys
import time
from dataclasses import dataclass

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from shared.errors import Environment
from tests.support.web_client import make_image
from worker.sandbox import messages, parent, requests
from worker.vision.errors import VisionError

pytestmark = pytest.mark.slow
READY = "import os, pickle, signal, sys, time; from worker.sandbox import messages; messages.send(sys.stdout.buffer, messages.READY)"


def prepare_request(data: bytes, name: str = "0" * 36) -> requests.PrepareImage:
    return requests.PrepareImage(data, name, None, 50_000_000)


@pytest.mark.parametrize(
    ("end", "by_kernel", "expected", "starts"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", False, "decoder_crash", 3),
        ("raise ValueError", False, "decoder_crash", 3),
        ("time.sleep(600)", False, "decoder_crash", 3),
        ("os.kill(os.getpid(), signal.SIGPROF)", False, "decoder_crash", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", False, "helper_killed", 1),
        ("os.kill(os.getpid(), signal.SIGTERM)", False, "helper_killed", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", True, "out_of_memory", 1),
        ("sys.exit(71)", False, "out_of_memory", 1),
    ],
)
def test_the_childs_exit_status_shows_whether_the_image_is_at_fault(
    monkeypatch: pytest.MonkeyPatch, end: str, expected: str, starts: int, *, by_kernel: bool
) -> None:
    started: list[int] = []
    kills = itertools.count(7) if by_kernel else itertools.repeat(7)

    def command(memory_bytes: int, _cpu_s: float) -> list[str]:
        started.append(memory_bytes)
        return [sys.executable, "-c", f"{READY}; sys.stdin.buffer.read(8); {end}"]

    monkeypatch.setattr(parent, "_command", command)
    monkeypatch.setattr(parent, "_oom_kills", lambda: next(kills))
    sandbox = parent.Sandbox(2 * 1024**3, 60)
    sandbox._timeout_s = 1 if "sleep" in end else 60
    with pytest.raises((VisionError, parent.SandboxKilled)) as caught:
        sandbox.run(prepare_request(make_image()))
    sandbox.close()
    assert getattr(caught.value, "code", None) == expected
    assert len(started) == starts


def test_a_child_that_cannot_be_started_is_not_the_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "_command", lambda *_: ["/missing/program"])
    with pytest.raises(Environment) as caught:
        parent.Sandbox(2 * 1024**3, 30).run(prepare_request(make_image()))
    assert not isinstance(caught.value, parent.SandboxKilled)


@pytest.mark.parametrize(
    "end",
    ["raise ValueError", "os.kill(os.getpid(), signal.SIGSEGV)", "os.kill(os.getpid(), signal.SIGKILL)", "time.sleep(600)", "sys.exit(71)", "print('noise' * 9, flush=True)"],
)
def test_a_child_that_ends_before_it_reads_a_request_is_not_the_images_fault(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    started: list[int] = []

    def command(memory_bytes: int, _cpu_s: float) -> list[str]:
        started.append(memory_bytes)
        return [sys.executable, "-c", f"import os, signal, sys, time; {end}"]

    sandbox = parent.Sandbox(2 * 1024**3, 1 if "sleep" in end else 60)
    with monkeypatch.context() as patch:
        patch.setattr(parent, "_command", command)
        with pytest.raises(Environment) as caught:
            sandbox.run(prepare_request(make_image()))
        assert not isinstance(caught.value, parent.SandboxKilled)
        assert len(started) == 1
    sandbox._start_timeout_s = 60
    assert sandbox.run(prepare_request(make_image())).fields["width"] == 64
    sandbox.close()


def test_the_time_until_the_child_is_ready_does_not_count_as_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = f"import time; time.sleep(4); {READY}; sys.stdin.buffer.read(8); messages.send(sys.stdout.buffer, pickle.dumps(messages.Reply(1, 'done')))"
    monkeypatch.setattr(parent, "_command", lambda *_: [sys.executable, "-c", slow])
    sandbox = parent.Sandbox(2 * 1024**3, 60)
    sandbox._timeout_s = 3
    reply: object = sandbox.run(prepare_request(make_image()))
    assert reply == "done"
    sandbox.close()


@dataclass(frozen=True, slots=True)
class Spin:
    """A request that computes for ``seconds`` of CPU time, like a slow decoder."""

    seconds: float

    def execute(self) -> None:
        """Compute until the time has passed."""
        until = time.process_time() + self.seconds
        while time.process_time() < until:
            pass


@dataclass(frozen=True, slots=True)
class Heavy:
    """A request that takes ``seconds`` of CPU time to unpickle."""

    seconds: float

    def execute(self) -> None:
        """Do nothing, because unpickling has already taken the time."""

    def __reduce__(self) -> tuple[object, tuple[float]]:
        """Let ``pickle`` call ``_read_slowly`` to unpickle this object."""
        return _read_slowly, (self.seconds,)


def _read_slowly(seconds: float) -> Heavy:
    Spin(seconds).execute()
    return Heavy(seconds)


def test_each_request_has_the_whole_cpu_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "_CPU_SHARE", 0.05)
    sandbox = parent.Sandbox(2 * 1024**3, 40)  # the CPU time limit is 2 s
    try:
        sandbox.run(Spin(1))
        sandbox.run(Heavy(2.5))
    finally:
        sandbox.close()


def test_the_cpu_time_limit_holds_although_the_parent_ignores_and_blocks_its_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "_CPU_SHARE", 0.02)
    sandbox = parent.Sandbox(2 * 1024**3, 50)
    before = signal.signal(signal.SIGPROF, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})
    try:
        began = time.monotonic()
        with pytest.raises(VisionError):
            sandbox.run(Spin(600))
        assert time.monotonic() - began < 50
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
        signal.signal(signal.SIGPROF, before)
        sandbox.close()


def test_an_image_that_reaches_the_cpu_time_limit_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "_CPU_SHARE", 0.05)
    sandbox = parent.Sandbox(2 * 1024**3, 80)
    try:
        began = time.monotonic()
        with pytest.raises(VisionError) as caught:
            sandbox.run(Spin(600))
        assert caught.value.code == "decoder_crash"
        assert time.monotonic() - began < 80
        assert sandbox._child is None
        for _ in range(5):  # each request has its own limit of 4 s
            sandbox.run(Spin(1))
    finally:
        sandbox.close()


def test_a_reply_whose_wait_was_interrupted_is_never_taken_for_the_next_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = parent.Sandbox(2 * 1024**3, 30)
    receive = messages.receive

    def interrupted(_pipe: object) -> bytes:
        raise SoftTimeLimitExceeded

    try:
        assert sandbox.run(prepare_request(make_image(1), "1" * 36)).fields["width"] == 64
        monkeypatch.setattr(parent, "receive", interrupted)
        with pytest.raises(SoftTimeLimitExceeded):
            sandbox.run(prepare_request(make_image(2, (80, 40)), "2" * 36))
        monkeypatch.setattr(parent, "receive", receive)
        third = sandbox.run(prepare_request(make_image(3, (32, 24)), "3" * 36))
        assert (third.image_id, third.fields["width"]) == ("3" * 36, 32)
    finally:
        sandbox.close()


def test_a_frozen_child_is_killed_after_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = parent.Sandbox(2 * 1024**3, 120)
    command = parent._command

    def without_limits(memory_bytes: int, _cpu_s: float) -> list[str]:
        sandbox._timeout_s = 120  # only the frozen child needs the short limit; the next child may take long to start
        return command(memory_bytes, 120)

    try:
        sandbox.run(prepare_request(make_image(1)))
        assert sandbox._child is not None
        sandbox._child.send_signal(signal.SIGSTOP)
        sandbox._timeout_s = 2
        monkeypatch.setattr(parent, "_command", without_limits)
        began = time.monotonic()
        # The request is larger than the buffer of a pipe.
        assert sandbox.run(prepare_request(make_image(2, (900, 900), "BMP"))).fields["width"] == 900
        assert time.monotonic() - began < 100
    finally:
        sandbox.close()


@pytest.mark.slow
def test_an_image_longer_than_a_jpeg_can_be_is_refused_by_its_size() -> None:
    sandbox = parent.Sandbox(2 * 1024**3, 30)
    try:
        with pytest.raises(VisionError) as caught:
            sandbox.run(prepare_request(make_image(1, (65_501, 8), "PNG")))
        assert caught.value.code == "too_many_pixels"
        prepared = sandbox.run(prepare_request(make_image(1, (65_500, 8), "PNG")))
        assert sandbox.run(requests.FinishImage(prepared, [], ["rotate"])).files.keys() == {"thumb", "rendition", "boxes", "rotate"}
    finally:
        sandbox.close()


@pytest.mark.slow
def test_an_image_that_needs_too_much_memory_fails_alone() -> None:
    sandbox = parent.Sandbox(250 * 1024**2, 30)
    try:
        with pytest.raises(VisionError) as caught:
            sandbox.run(prepare_request(make_image(1, (7000, 6000), "PNG")))
        assert caught.value.code == "out_of_memory"
        assert sandbox.run(prepare_request(make_image(1))).fields["width"] == 64
    finally:
        sandbox.close()
