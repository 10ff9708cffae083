"""Channels and values that do not belong to the visible image: unused opacity, missing values, and previews."""

import struct
from typing import Final

import numpy as np
import pytest
from PIL import Image

from tests.support.crafted_images import build_alpha_bmp, build_tiff, draw_image, encode_image
from worker.vision import imaging
from worker.vision.errors import VisionError
from worker.vision.imaging import Rgb

MAX: Final = 50_000_000
IMAGE: Final = draw_image(size=(40, 30))
GREY: Final = np.asarray(IMAGE.convert("L"))
NO_DATA: Final = 42_113


def read(data: bytes) -> Rgb:
    return imaging.decode(data, max_pixels=MAX).rgb


def float_tiff(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], no_data: str | None = None) -> bytes:
    return encode_image(Image.fromarray(values), "TIFF", tiffinfo={} if no_data is None else {NO_DATA: no_data})


@pytest.mark.parametrize("header_length", [108, 124])
def test_a_bmp_whose_opacity_is_nowhere_set_is_opaque(header_length: int) -> None:
    assert np.array_equal(read(build_alpha_bmp(IMAGE, 0, header_length=header_length)), np.asarray(IMAGE))
    assert np.array_equal(read(build_alpha_bmp(IMAGE, 255, header_length=header_length)), np.asarray(IMAGE))
    half = read(build_alpha_bmp(IMAGE, 128, header_length=header_length))
    assert np.abs(half - (np.asarray(IMAGE) * (128 / 255) + 127)).max() <= 2


def test_a_bmp_with_a_single_opaque_pixel_is_transparent() -> None:
    data = bytearray(build_alpha_bmp(IMAGE, 0))
    data[-1] = 255
    assert (read(bytes(data)) == 255).mean() > 0.99


@pytest.mark.parametrize("alpha", [0, 99, 255])
@pytest.mark.parametrize(("extra", "is_opaque"), [(None, True), (0, True), (2, False)])
def test_the_fourth_channel_of_a_tiff_is_its_opacity_only_if_a_field_says_so(alpha: int, extra: int | None, *, is_opaque: bool) -> None:
    pixels = np.dstack([np.asarray(IMAGE), np.full((30, 40), alpha, np.uint8)])
    fields = {256: 40, 257: 30, 258: 8, 259: 1, 262: 2, 273: 8, 277: 4, 278: 30, 279: pixels.size} | ({} if extra is None else {338: extra})
    found = read(build_tiff("<", fields, pixels=pixels.tobytes()))
    assert np.array_equal(found, np.asarray(IMAGE)) == (is_opaque or alpha in {0, 255})


def test_a_png_that_is_transparent_everywhere_is_white() -> None:
    transparent = IMAGE.copy()
    transparent.putalpha(0)
    assert (read(encode_image(transparent, "PNG")) == 255).all()


@pytest.mark.parametrize("missing", [np.inf, -np.inf, np.nan, 3.4028235e38, -3.4028235e38, 1e38, -1e38, 1e30, -9999, -32768, 1e20, 99_999])
@pytest.mark.parametrize("count", [1, 400])
@pytest.mark.parametrize("scale", [1 / 255, 1 / 51])
def test_pixels_without_a_value_do_not_darken_a_float_tiff(missing: float, count: int, scale: float) -> None:
    values = GREY.astype(np.float32) * np.float32(scale)
    values.flat[-1] = 255 * scale
    clean = read(float_tiff(values))
    values.flat[:count] = missing
    found = read(float_tiff(values))
    assert (found.reshape(-1, 3)[:count] == 0).all()
    assert np.array_equal(found.reshape(-1, 3)[count:], clean.reshape(-1, 3)[count:])


@pytest.mark.parametrize("text", ["9999", " 9999 ", "9999.0", "9.999e3"])
def test_the_value_that_a_tiff_names_for_missing_pixels_is_not_the_white(text: str) -> None:
    values = GREY.astype(np.float32)
    values[-1, -1] = 255
    values[0, 0] = 9999
    assert read(float_tiff(values, text))[1:].max() == 255
    assert read(float_tiff(values, text))[0, 0].max() == 0
    assert read(float_tiff(values, "nonsense")).max() == 255
    assert read(float_tiff(values))[1:].max() < 10


@pytest.mark.parametrize("values", [np.full((9, 9), np.nan), np.full((9, 9), np.inf), np.zeros((9, 9)), np.full((9, 9), -5), np.full((9, 9), 1e38)])
def test_an_image_without_any_value_is_black(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    assert (read(float_tiff(values.astype(np.float32))) == 0).all()


def test_an_image_of_one_value_is_white() -> None:
    for value in (1e-6, 1, 1e9):
        assert (read(float_tiff(np.full((9, 9), value, np.float32))) == 255).all()


def raw_photo(preview: dict[int, int], subfile: int = 1, *, with_second: bool = True) -> bytes:
    """Return a TIFF whose first directory describes 4 x 1 grey pixels, with the given additional fields."""
    fields = {254: subfile, 256: 4, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 4} | preview
    first = build_tiff("<", fields)
    if not with_second:
        return first
    second = build_tiff("<", fields | {254: 0})[12:]
    return first[:-4] + struct.pack("<I", len(first)) + second


@pytest.mark.parametrize("data", [raw_photo({}), raw_photo({330: 8}, with_second=False), raw_photo({330: 8, 50706: 1}), raw_photo({}, subfile=5)])
def test_a_raw_photo_is_not_taken_for_its_preview(data: bytes) -> None:
    with pytest.raises(VisionError, match="unsupported_format"):
        read(data)


def test_a_tiff_with_a_second_page_or_without_a_larger_image_is_decoded() -> None:
    for data in (raw_photo({}, subfile=0), raw_photo({}, subfile=2), raw_photo({}, with_second=False), raw_photo({330: 8}, subfile=0, with_second=False)):
        assert read(data).shape == (1, 4, 3)


def test_a_raw_photo_of_canon_is_not_supported() -> None:
    data = build_tiff("<", {256: 4, 257: 1, 258: 8, 259: 1, 262: 1, 273: 12, 277: 1, 278: 1, 279: 4}, pixels=b"CR\2\0" + bytes(4))
    with pytest.raises(VisionError, match="unsupported_format"):
        read(data)
