"""Tests that the sandbox returns the same results as direct calls, and distinguishes how its child ends."""

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
from tests.support.crafted_images import draw_image, encode_image
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
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(MEMORY_BYTES, 60)
    yield sandbox
    sandbox.close()


def pid(sandbox: Sandbox) -> int:
    assert sandbox._child is not None
    return sandbox._child.pid


@dataclass(frozen=True, slots=True)
class Crash:
    """A request that aborts the child, like a decoder that crashes."""

    def execute(self) -> None:
        os.abort()


@dataclass(frozen=True, slots=True)
class Fault:
    """A request that raises an exception which no fault of an image raises."""

    def execute(self) -> None:
        raise KeyError("a bug")


@dataclass(frozen=True, slots=True)
class Hang:
    """A request that does not return within the time limit."""

    def execute(self) -> None:
        time.sleep(600)


@dataclass(frozen=True, slots=True)
class Greed:
    """A request that allocates more memory than the limit allows."""

    def execute(self) -> None:
        bytearray(2 * MEMORY_BYTES)


@dataclass(frozen=True, slots=True)
class Killed:
    """A request whose child receives SIGTERM, as if another process had terminated the child."""

    def execute(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)


@dataclass(frozen=True, slots=True)
class Twice:
    """A request that sends an additional reply before its own."""

    def execute(self) -> int:
        send(sys.stdout.buffer, pickle.dumps(Reply(1, "early")))
        return 2


def test_an_inspections_image_gets_the_same_result_as_in_this_process(sandbox: Sandbox) -> None:
    augmented = sandbox.run(AugmentImage(SAMPLE, DEFAULT_AUGMENTATIONS, 7, MAX))
    expected = describe.augment_image(SAMPLE, names=DEFAULT_AUGMENTATIONS, seed=7, max_pixels=MAX)
    assert (augmented.fields, augmented.files) == (expected.fields, expected.files)
    described, expected = sandbox.run(DescribeImage(SAMPLE, MAX)), describe.describe_image(SAMPLE, max_pixels=MAX)
    assert (described.fields, described.files) == (expected.fields, expected.files)
    assert np.array_equal(described.rgb, expected.rgb)


def test_an_image_of_a_batch_is_prepared_and_finished(sandbox: Sandbox) -> None:
    prepared = sandbox.run(PrepareImage(SAMPLE, "one", None, MAX))
    finished = sandbox.run(FinishImage(prepared, [{"label": "Milk", "score": 0.9, "box": [10, 10, 90, 90]}], ["rotate"]))
    assert finished.image_id == "one"
    assert set(finished.files) == {"thumb", "boxes", "rotate"}


def test_faulty_images_have_error_codes_and_the_child_lives_on(sandbox: Sandbox) -> None:
    sandbox.run(DescribeImage(encode_image(draw_image(), "PNG"), MAX))
    first = pid(sandbox)
    for data, code in ((b"", "empty"), (b"<html>", "unsupported_format"), (SAMPLE[:9000], "truncated")):
        for request in (DescribeImage(data, MAX), AugmentImage(data, (), 1, MAX), PrepareImage(data, "one", None, MAX)):
            with pytest.raises(VisionError, match=code):
                sandbox.run(request)
    assert pid(sandbox) == first


@pytest.mark.parametrize(("request_", "code"), [(Crash(), "decoder_crash"), (Fault(), "decoder_crash"), (Greed(), "out_of_memory")])
def test_a_crash_or_too_much_memory_is_the_images_fault_and_the_next_image_gets_a_new_child(sandbox: Sandbox, request_: Crash | Fault | Greed, code: str) -> None:
    with pytest.raises(VisionError, match=code):
        sandbox.run(request_)
    assert sandbox.run(DescribeImage(SAMPLE, MAX)).fields["format"] == "jpeg"


def test_a_child_that_hangs_is_killed(sandbox: Sandbox) -> None:
    sandbox._timeout_s = 0.5
    with pytest.raises(VisionError, match="decoder_crash"):
        sandbox.run(Hang())


def test_a_kill_from_outside_is_not_the_images_fault(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxKilled):
        sandbox.run(Killed())
    assert sandbox.run(DescribeImage(SAMPLE, MAX)).fields["format"] == "jpeg"


def test_a_reply_is_never_taken_for_another_requests(sandbox: Sandbox) -> None:
    sandbox.run(DescribeImage(SAMPLE, MAX))
    with pytest.raises(RuntimeError, match="another request"):
        sandbox.run(Twice())  # the additional reply has the number of the first request
    assert sandbox.run(DescribeImage(SAMPLE, MAX)).fields["format"] == "jpeg"
