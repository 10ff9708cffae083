"""Every file of the corpus gives a whole, valid image or a stable error code, in bounded time and memory."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.crafted_images import draw_image, encode_image
from tests.support.image_corpus import MAX_PIXELS, ImageCase, build_corpus, intact_files
from worker.sandbox.parent import Sandbox
from worker.sandbox.requests import PrepareImage
from worker.vision import imaging
from worker.vision.errors import VisionError
from worker.vision.imaging import DecodedImage

FORMS = build_corpus()
WHOLES = intact_files()
MAX_SECONDS = 2.0
MEMORY_BYTES = 300 * 1024**2
TRAILING_BYTES = {"jpeg": 2, "tiff pages": 4, "bmp run lengths": 2}
"""Bytes at the end of a file that do not affect its pixels, and may be missing."""

several = settings(deadline=None, max_examples=40, database=None, derandomize=True)


def decode(data: bytes) -> DecodedImage | str:
    """Return the decoded image, or the error code."""
    try:
        return imaging.decode(data, max_pixels=MAX_PIXELS)
    except VisionError as error:
        return error.code


def is_valid(image: DecodedImage) -> bool:
    height, width = image.height, image.width
    return (
        image.rgb.shape == (height, width, 3)
        and image.rgb.dtype == np.uint8
        and image.rgb.flags.c_contiguous
        and 0 < height * width <= MAX_PIXELS
        and image.frames >= 1
    )


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_every_file_of_the_corpus_has_the_expected_outcome_in_bounded_time(form: ImageCase) -> None:
    start = time.process_time()
    image = decode(form.data)
    assert time.process_time() - start < MAX_SECONDS
    if isinstance(image, str):
        assert image == form.outcome
    else:
        assert image.format == form.outcome
        assert is_valid(image)
        assert imaging.read_pixel_count(form.data) in {None, image.height * image.width}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_the_limit_on_pixels_is_exact(kind: str) -> None:
    data = encode_image(draw_image(1, (50, 40)), kind)
    assert is_valid(imaging.decode(data, max_pixels=2000))
    with pytest.raises(VisionError, match="too_many_pixels"):
        imaging.decode(data, max_pixels=1999)


def test_one_sandbox_child_survives_the_whole_corpus_with_little_memory() -> None:
    sandbox = Sandbox(MEMORY_BYTES, 30)
    try:
        sandbox.run(PrepareImage(encode_image(draw_image(), "JPEG"), "first", None, MAX_PIXELS))
        assert sandbox._child is not None
        pid = sandbox._child.pid
        for form in FORMS:
            try:
                sandbox.run(PrepareImage(form.data, form.name, None, MAX_PIXELS))
                outcome = "done"
            except VisionError as error:
                outcome = error.code
            assert (form.name, outcome) == (form.name, "done" if form.is_decodable else form.outcome)
            assert sandbox._child.pid == pid
    finally:
        sandbox.close()


def test_the_frames_of_a_long_animation_are_counted_without_being_decode() -> None:
    (form,) = [form for form in FORMS if form.name == "gif of 50000 frames"]
    image = imaging.decode(form.data, max_pixels=MAX_PIXELS)
    assert image.frames == 50_000


@pytest.mark.parametrize("name", ["png animated", "gif animated", "tiff pages", "webp animated", "avif animated"])
def test_the_frames_of_every_animated_format_are_counted(name: str) -> None:
    assert imaging.decode(WHOLES[name], max_pixels=MAX_PIXELS).frames == 3


@pytest.mark.parametrize("name", WHOLES)
@several
@given(data=st.data())
def test_a_truncated_file_never_decodes(name: str, data: st.DataObject) -> None:
    whole = WHOLES[name]
    length = data.draw(st.integers(0, len(whole) - 1 - TRAILING_BYTES.get(name, 0)))
    outcome = decode(whole[:length])
    assert outcome in {"truncated", "corrupt", "unsupported_format", "empty"}


@pytest.mark.parametrize("name", WHOLES)
def test_a_file_without_its_last_bytes_never_decodes(name: str) -> None:
    whole = WHOLES[name]
    assert is_valid(imaging.decode(whole, max_pixels=MAX_PIXELS))
    for missing in range(1 + TRAILING_BYTES.get(name, 0), 40):
        assert decode(whole[:-missing]) in {"truncated", "corrupt"}


@pytest.mark.parametrize("name", WHOLES)
@several
@given(data=st.data())
def test_damaged_bytes_give_a_valid_image_or_an_error_code(name: str, data: st.DataObject) -> None:
    damaged = bytearray(WHOLES[name])
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    outcome = decode(bytes(damaged))
    assert isinstance(outcome, str) or is_valid(outcome)
