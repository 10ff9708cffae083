"""Whatever the file: a sound picture or one stable code, within bounded time and memory; and never a part for the whole."""

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
from worker.vision.imaging import Picture

FORMS = build_corpus()
WHOLES = intact_files()
AT_MOST_S = 2.0
MEMORY_BYTES = 300 * 1024**2
NO_PIXELS_BEHIND = {"tiff pages": 4, "bmp run lengths": 2}
"""Bytes at the end of a file that say nothing of its pixels: it may lack them."""

several = settings(deadline=None, max_examples=40, database=None, derandomize=True)


def decoded(data: bytes) -> Picture | str:
    """Decode; a string is the code of the fault."""
    try:
        return imaging.decode(data, max_pixels=MAX_PIXELS)
    except VisionError as error:
        return error.code


def is_sound(picture: Picture) -> bool:
    height, width = picture.height, picture.width
    return (
        picture.rgb.shape == (height, width, 3)
        and picture.rgb.dtype == np.uint8
        and picture.rgb.flags.c_contiguous
        and 0 < height * width <= MAX_PIXELS
        and picture.frames >= 1
    )


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_every_form_ends_as_it_should_and_soon(form: ImageCase) -> None:
    began = time.process_time()
    picture = decoded(form.data)
    assert time.process_time() - began < AT_MOST_S
    if isinstance(picture, str):
        assert picture == form.outcome
    else:
        assert picture.format == form.outcome
        assert is_sound(picture)
        assert imaging.pixels(form.data) in {None, picture.height * picture.width}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_the_limit_on_pixels_is_exact(kind: str) -> None:
    data = encode_image(draw_image(1, (50, 40)), kind)
    assert is_sound(imaging.decode(data, max_pixels=2000))
    with pytest.raises(VisionError, match="too_many_pixels"):
        imaging.decode(data, max_pixels=1999)


def test_one_helper_outlives_all_of_them_within_little_memory() -> None:
    helper = Sandbox(MEMORY_BYTES, 30)
    try:
        helper.run(PrepareImage(encode_image(draw_image(), "JPEG"), "first", None, MAX_PIXELS))
        assert helper._child is not None
        pid = helper._child.pid
        for form in FORMS:
            try:
                helper.run(PrepareImage(form.data, form.name, None, MAX_PIXELS))
                outcome = "done"
            except VisionError as error:
                outcome = error.code
            assert (form.name, outcome) == (form.name, "done" if form.is_decodable else form.outcome)
            assert helper._child.pid == pid
    finally:
        helper.close()


def test_the_frames_of_a_long_animation_are_counted_without_being_decoded() -> None:
    (form,) = [one for one in FORMS if one.name == "gif of 50000 frames"]
    picture = imaging.decode(form.data, max_pixels=MAX_PIXELS)
    assert picture.frames == 50_000


@pytest.mark.parametrize("name", ["png animated", "gif animated", "tiff pages", "webp animated", "avif animated"])
def test_the_frames_of_every_animated_format_are_counted(name: str) -> None:
    assert imaging.decode(WHOLES[name], max_pixels=MAX_PIXELS).frames == 3


@pytest.mark.parametrize("name", WHOLES)
@several
@given(data=st.data())
def test_a_picture_cut_short_never_decodes(name: str, data: st.DataObject) -> None:
    whole = WHOLES[name]
    cut = data.draw(st.integers(0, len(whole) - 1 - NO_PIXELS_BEHIND.get(name, 0)))
    outcome = decoded(whole[:cut])
    assert outcome in {"truncated", "corrupt", "unsupported_format", "empty"}


@pytest.mark.parametrize("name", WHOLES)
def test_a_picture_that_lacks_its_last_bytes_never_decodes(name: str) -> None:
    whole = WHOLES[name]
    assert is_sound(imaging.decode(whole, max_pixels=MAX_PIXELS))
    for lacking in range(1 + NO_PIXELS_BEHIND.get(name, 0), 40):
        assert decoded(whole[:-lacking]) in {"truncated", "corrupt"}


@pytest.mark.parametrize("name", WHOLES)
@several
@given(data=st.data())
def test_flipped_bytes_give_a_sound_picture_or_a_code(name: str, data: st.DataObject) -> None:
    damaged = bytearray(WHOLES[name])
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    outcome = decoded(bytes(damaged))
    assert isinstance(outcome, str) or is_sound(outcome)
