"""The helper process: it does what is done here, and how it ends is told apart."""

import os
import pickle
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from shared.augmentations import DEFAULT_AUGMENTATIONS
from tests.support import paths
from tests.support.crafted_images import drawn, encoded
from worker.sandbox.messages import Reply, send
from worker.sandbox.parent import Sandbox, SandboxKilled
from worker.sandbox.requests import AugmentImage, DescribeImage, FinishImage, PrepareImage
from worker.vision import describe
from worker.vision.errors import VisionError

pytestmark = pytest.mark.slow

SAMPLE = (paths.SAMPLES / "carton-01a.jpg").read_bytes()
MAX = 50_000_000
MEMORY_BYTES = 300 * 1024**2


@pytest.fixture
def helper() -> Iterator[Sandbox]:
    made = Sandbox(MEMORY_BYTES, 60)
    yield made
    made.close()


def pid(helper: Sandbox) -> int:
    assert helper._child is not None
    return helper._child.pid


@dataclass(frozen=True, slots=True)
class Crash:
    """Ends the helper as a decoder does that goes wrong."""

    def execute(self) -> None:
        os.abort()


@dataclass(frozen=True, slots=True)
class Fault:
    """Raises what is no picture's fault."""

    def execute(self) -> None:
        raise KeyError("a fault of ours")


@dataclass(frozen=True, slots=True)
class Hang:
    """Never ends."""

    def execute(self) -> None:
        time.sleep(600)


@dataclass(frozen=True, slots=True)
class Greed:
    """Takes more memory than there is."""

    def execute(self) -> None:
        bytearray(2 * MEMORY_BYTES)


@dataclass(frozen=True, slots=True)
class Killed:
    """Is ended from outside while it is at it."""

    def execute(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)


@dataclass(frozen=True, slots=True)
class Twice:
    """Answers once too often."""

    def execute(self) -> int:
        send(sys.stdout.buffer, pickle.dumps(Reply(1, "early")))
        return 2


def test_a_picture_by_url_becomes_there_what_it_becomes_here(helper: Sandbox) -> None:
    made = helper.run(AugmentImage(SAMPLE, DEFAULT_AUGMENTATIONS, 7, MAX))
    here = describe.augmented(SAMPLE, names=DEFAULT_AUGMENTATIONS, seed=7, max_pixels=MAX)
    assert (made.fields, made.files) == (here.fields, here.files)
    told, known = helper.run(DescribeImage(SAMPLE, MAX)), describe.described(SAMPLE, max_pixels=MAX)
    assert (told.fields, told.files) == (known.fields, known.files)
    assert np.array_equal(told.rgb, known.rgb)


def test_a_batchs_picture_is_prepared_and_finished_there(helper: Sandbox) -> None:
    prepared = helper.run(PrepareImage(SAMPLE, "one", None, MAX))
    made = helper.run(FinishImage(prepared, [{"label": "Milk", "score": 0.9, "box": [10, 10, 90, 90]}], ["rotate"]))
    assert made.image_id == "one"
    assert set(made.files) == {"thumb", "boxes", "rotate"}


def test_pictures_at_fault_have_their_codes_and_leave_the_helper_as_it_was(helper: Sandbox) -> None:
    helper.run(DescribeImage(encoded(drawn(), "PNG"), MAX))
    first = pid(helper)
    for data, code in ((b"", "empty"), (b"<html>", "unsupported_format"), (SAMPLE[:9000], "truncated")):
        for request in (DescribeImage(data, MAX), AugmentImage(data, (), 1, MAX), PrepareImage(data, "one", None, MAX)):
            with pytest.raises(VisionError, match=code):
                helper.run(request)
    assert pid(helper) == first


@pytest.mark.parametrize(("request_", "code"), [(Crash(), "decoder_crash"), (Fault(), "decoder_crash"), (Greed(), "out_of_memory")])
def test_what_ends_the_helper_is_the_pictures_fault_and_the_next_has_another(helper: Sandbox, request_: Crash | Fault | Greed, code: str) -> None:
    with pytest.raises(VisionError, match=code):
        helper.run(request_)
    assert helper.run(DescribeImage(SAMPLE, MAX)).fields["format"] == "jpeg"


def test_what_hangs_is_ended(helper: Sandbox) -> None:
    helper._timeout_s = 0.5
    with pytest.raises(VisionError, match="decoder_crash"):
        helper.run(Hang())


def test_a_kill_from_outside_says_nothing_of_the_picture(helper: Sandbox) -> None:
    with pytest.raises(SandboxKilled):
        helper.run(Killed())
    assert helper.run(DescribeImage(SAMPLE, MAX)).fields["format"] == "jpeg"


def test_an_answer_is_never_taken_for_that_to_another_request(helper: Sandbox) -> None:
    helper.run(DescribeImage(SAMPLE, MAX))
    with pytest.raises(RuntimeError, match="another request"):
        helper.run(Twice())  # the early answer bears the first one's number
    assert helper.run(DescribeImage(SAMPLE, MAX)).fields["format"] == "jpeg"
