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

from shared.media_types import DEFAULT_AUGMENTATIONS
from tests.support import paths
from tests.support.crafted_images import draw_image, encode_image
from worker.sandbox.parent import Augment, Describe, Finish, HelperKilled, Isolate, Look, Reply, send
from worker.vision import describe
from worker.vision.errors import VisionError

pytestmark = pytest.mark.slow

SAMPLE = (paths.SAMPLES / "carton-01a.jpg").read_bytes()
MAX = 50_000_000
MEMORY_BYTES = 300 * 1024**2


@pytest.fixture
def helper() -> Iterator[Isolate]:
    made = Isolate(MEMORY_BYTES, 60)
    yield made
    made.close()


def pid(helper: Isolate) -> int:
    assert helper._helper is not None
    return helper._helper.pid


@dataclass(frozen=True, slots=True)
class Crash:
    """Ends the helper as a decoder does that goes wrong."""

    def do(self) -> None:
        os.abort()


@dataclass(frozen=True, slots=True)
class Fault:
    """Raises what is no picture's fault."""

    def do(self) -> None:
        raise KeyError("a fault of ours")


@dataclass(frozen=True, slots=True)
class Hang:
    """Never ends."""

    def do(self) -> None:
        time.sleep(600)


@dataclass(frozen=True, slots=True)
class Greed:
    """Takes more memory than there is."""

    def do(self) -> None:
        bytearray(2 * MEMORY_BYTES)


@dataclass(frozen=True, slots=True)
class Killed:
    """Is ended from outside while it is at it."""

    def do(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)


@dataclass(frozen=True, slots=True)
class Twice:
    """Answers once too often."""

    def do(self) -> int:
        send(sys.stdout.buffer, pickle.dumps(Reply(1, "early")))
        return 2


def test_a_picture_by_url_becomes_there_what_it_becomes_here(helper: Isolate) -> None:
    made = helper.do(Augment(SAMPLE, DEFAULT_AUGMENTATIONS, 7, MAX))
    here = describe.augmented(SAMPLE, names=DEFAULT_AUGMENTATIONS, seed=7, max_pixels=MAX)
    assert (made.fields, made.files) == (here.fields, here.files)
    told, known = helper.do(Describe(SAMPLE, MAX)), describe.described(SAMPLE, max_pixels=MAX)
    assert (told.fields, told.files) == (known.fields, known.files)
    assert np.array_equal(told.rgb, known.rgb)


def test_a_batchs_picture_is_prepared_and_finished_there(helper: Isolate) -> None:
    prepared = helper.do(Look(SAMPLE, "one", None, MAX))
    made = helper.do(Finish(prepared, [{"label": "Milk", "score": 0.9, "box": [10, 10, 90, 90]}], ["rotate"]))
    assert made.image_id == "one"
    assert set(made.files) == {"thumb", "boxes", "rotate"}


def test_pictures_at_fault_have_their_codes_and_leave_the_helper_as_it_was(helper: Isolate) -> None:
    helper.do(Describe(encode_image(draw_image(), "PNG"), MAX))
    first = pid(helper)
    for data, code in ((b"", "empty"), (b"<html>", "unsupported_format"), (SAMPLE[:9000], "truncated")):
        for request in (Describe(data, MAX), Augment(data, (), 1, MAX), Look(data, "one", None, MAX)):
            with pytest.raises(VisionError, match=code):
                helper.do(request)
    assert pid(helper) == first


@pytest.mark.parametrize(("request_", "code"), [(Crash(), "decoder_crash"), (Fault(), "decoder_crash"), (Greed(), "out_of_memory")])
def test_what_ends_the_helper_is_the_pictures_fault_and_the_next_has_another(helper: Isolate, request_: Crash | Fault | Greed, code: str) -> None:
    with pytest.raises(VisionError, match=code):
        helper.do(request_)
    assert helper.do(Describe(SAMPLE, MAX)).fields["format"] == "jpeg"


def test_what_hangs_is_ended(helper: Isolate) -> None:
    helper._timeout = 0.5
    with pytest.raises(VisionError, match="decoder_crash"):
        helper.do(Hang())


def test_a_kill_from_outside_says_nothing_of_the_picture(helper: Isolate) -> None:
    with pytest.raises(HelperKilled):
        helper.do(Killed())
    assert helper.do(Describe(SAMPLE, MAX)).fields["format"] == "jpeg"


def test_an_answer_is_never_taken_for_that_to_another_request(helper: Isolate) -> None:
    helper.do(Describe(SAMPLE, MAX))
    with pytest.raises(RuntimeError, match="another request"):
        helper.do(Twice())  # the early answer bears the first one's number
    assert helper.do(Describe(SAMPLE, MAX)).fields["format"] == "jpeg"
