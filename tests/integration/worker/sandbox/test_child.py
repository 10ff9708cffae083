"""The process in which suspicious pictures are looked at: how it ends, and what that says."""

import itertools
import signal
import sys
import time
from dataclasses import dataclass

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from tests.support.web_client import make_image
from worker.sandbox import parent
from worker.vision.errors import VisionError

pytestmark = pytest.mark.slow


def wanted(data: bytes, name: str = "0" * 36) -> parent.Look:
    return parent.Look(data, name, None, 50_000_000)


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
def test_how_a_helper_died_says_whether_its_picture_is_to_blame(
    monkeypatch: pytest.MonkeyPatch, end: str, expected: str, starts: int, *, by_kernel: bool
) -> None:
    begun: list[int] = []
    kills = itertools.count(7) if by_kernel else itertools.repeat(7)

    def command(memory_bytes: int, _cpu_s: float) -> list[str]:
        begun.append(memory_bytes)
        return [sys.executable, "-c", f"import os, signal, sys, time; sys.stdin.buffer.read(8); {end}"]

    monkeypatch.setattr(parent, "_command", command)
    monkeypatch.setattr(parent, "_oom_kills", lambda: next(kills))
    helper = parent.Isolate(2 * 1024**3, 1 if "sleep" in end else 60)
    with pytest.raises((VisionError, parent.HelperKilled)) as caught:
        helper.do(wanted(make_image()))
    helper.close()
    assert getattr(caught.value, "code", None) == expected
    assert len(begun) == starts


@dataclass(frozen=True, slots=True)
class Spin:
    """What a decoder does that computes for so long."""

    seconds: float

    def do(self) -> None:
        """Compute."""
        until = time.process_time() + self.seconds
        while time.process_time() < until:
            pass


@dataclass(frozen=True, slots=True)
class Heavy:
    """A request that takes long to read."""

    seconds: float

    def do(self) -> None:
        """Nothing more."""

    def __reduce__(self) -> tuple[object, tuple[float]]:
        """Let who reads it compute."""
        return _read_slowly, (self.seconds,)


def _read_slowly(seconds: float) -> Heavy:
    Spin(seconds).do()
    return Heavy(seconds)


def test_what_one_picture_left_of_its_time_is_not_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "_BUSY", 0.05)
    helper = parent.Isolate(2 * 1024**3, 40)  # 2 s for each
    try:
        helper.do(Spin(1))
        helper.do(Heavy(2.5))
    finally:
        helper.close()


def test_the_limit_holds_whatever_signals_the_parent_keeps_from_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "_BUSY", 0.02)
    helper = parent.Isolate(2 * 1024**3, 50)
    before = signal.signal(signal.SIGPROF, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})
    try:
        began = time.monotonic()
        with pytest.raises(VisionError):
            helper.do(Spin(600))
        assert time.monotonic() - began < 50
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
        signal.signal(signal.SIGPROF, before)
        helper.close()


def test_a_picture_over_which_a_helper_computes_without_an_end_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "_BUSY", 0.05)
    helper = parent.Isolate(2 * 1024**3, 80)
    try:
        began = time.monotonic()
        with pytest.raises(VisionError) as caught:
            helper.do(Spin(600))
        assert caught.value.code == "decoder_crash"
        assert time.monotonic() - began < 80
        assert helper._helper is None
        for _ in range(5):  # each has the 4 s to itself; a machine that stands still counts, too
            helper.do(Spin(1))
    finally:
        helper.close()


def test_an_answer_that_nobody_waited_for_never_becomes_another_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    helper = parent.Isolate(2 * 1024**3, 30)
    receive = parent.receive

    def interrupted(_pipe: object) -> bytes:
        raise SoftTimeLimitExceeded

    try:
        assert helper.do(wanted(make_image(1), "1" * 36)).fields["width"] == 64
        monkeypatch.setattr(parent, "receive", interrupted)
        with pytest.raises(SoftTimeLimitExceeded):
            helper.do(wanted(make_image(2, (80, 40)), "2" * 36))
        monkeypatch.setattr(parent, "receive", receive)
        third = helper.do(wanted(make_image(3, (32, 24)), "3" * 36))
        assert (third.image_id, third.fields["width"]) == ("3" * 36, 32)
    finally:
        helper.close()


def test_a_frozen_helper_is_waited_for_no_longer_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    helper = parent.Isolate(2 * 1024**3, 120)
    command = parent._command

    def unhurried(memory_bytes: int, _cpu_s: float) -> list[str]:
        helper._timeout = 120  # the time is the frozen one's; the next has to import much first
        return command(memory_bytes, 120)

    try:
        helper.do(wanted(make_image(1)))
        assert helper._helper is not None
        helper._helper.send_signal(signal.SIGSTOP)
        helper._timeout = 2
        monkeypatch.setattr(parent, "_command", unhurried)
        began = time.monotonic()
        assert helper.do(wanted(make_image(2, (900, 900), "BMP"))).fields["width"] == 900  # more than a pipe holds
        assert time.monotonic() - began < 100
    finally:
        helper.close()


@pytest.mark.slow
def test_a_strip_longer_than_a_jpeg_can_be_is_refused_by_its_size() -> None:
    helper = parent.Isolate(2 * 1024**3, 30)
    try:
        with pytest.raises(VisionError) as caught:
            helper.do(wanted(make_image(1, (65_501, 8), "PNG")))
        assert caught.value.code == "too_many_pixels"
        prepared = helper.do(wanted(make_image(1, (65_500, 8), "PNG")))
        assert helper.do(parent.Finish(prepared, [], ["rotate"])).files.keys() == {"thumb", "rendition", "boxes", "rotate"}
    finally:
        helper.close()


@pytest.mark.slow
def test_a_picture_that_takes_too_much_memory_ends_alone() -> None:
    helper = parent.Isolate(250 * 1024**2, 30)
    try:
        with pytest.raises(VisionError) as caught:
            helper.do(wanted(make_image(1, (7000, 6000), "PNG")))
        assert caught.value.code == "out_of_memory"
        assert helper.do(wanted(make_image(1))).fields["width"] == 64
    finally:
        helper.close()
