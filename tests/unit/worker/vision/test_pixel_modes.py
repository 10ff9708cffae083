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


@pytest.mark.parametrize("text", ["9998", " 9998 ", "9998.0", "9.998e3"])
def test_the_value_that_a_tiff_names_for_missing_pixels_is_not_the_white(text: str) -> None:
    values = GREY.astype(np.float32)
    values[-1, -1] = 255
    values[0, 0] = 9998
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


def grey_with(missing: list[float], scale: float, offset: float = 0.0) -> tuple[Rgb, Rgb]:
    """Decode a float TIFF with and without these values in its first pixels, and return the other pixels."""
    values = (GREY.astype(np.float32) / 255 * np.float32(scale) + np.float32(offset)).astype(np.float32)
    values.flat[-2:] = offset, offset + scale
    clean = read(float_tiff(values))
    values.flat[: len(missing)] = missing
    found = read(float_tiff(values))
    assert (found.reshape(-1, 3)[: len(missing)] == 0).all()
    return found.reshape(-1, 3)[len(missing) :], clean.reshape(-1, 3)[len(missing) :]


@pytest.mark.parametrize(
    ("missing", "scale", "offset"),
    [
        ([9999], 20, 0), ([-9999], 20, 0), ([99_999], 300, 0), ([65_535], 1000, 0), ([-32_768], 1000, 0), ([32_767], 1000, 0), ([999], 60, 0),
        ([1e20, 9e19], 1, 0), ([1e19, -1e15, 9999, -9999], 1, 0), ([9999, 65_535, -32_768], 20, 0), ([1e20], 20, -20), ([9999], 20, -20), ([-9999], 20_000, 0),
        ([9999], 900, -20_000), ([-9999, 9999], 40, -20), ([2**31], 1000, 0), ([-(2**31)], 1000, -500), ([2**32], 1000, 0),
    ],
)  # fmt: skip
def test_usual_markers_and_values_far_from_the_others_do_not_darken_an_image(missing: list[float], scale: float, offset: float) -> None:
    found, clean = grey_with(missing, scale, offset)
    assert np.array_equal(found, clean)
    assert (clean.min(), clean.max()) == (0, 255)


@pytest.mark.parametrize(
    ("values", "grey"),
    [([0, 5000, 9999], [0, 127, 255]), ([0, 65_535, 9000], [0, 255, 35]), ([-9999, -5000, 9000], [0, 67, 255]), ([-9999, 0, 9000], [0, 0, 255]),
     ([-20, -10, 0], [0, 127, 255]), ([-20, 0, 20], [0, 127, 255]), ([-30, -20, -10], [0, 127, 255]), ([-1, -1, -1], [0, 0, 0])],
)  # fmt: skip
def test_values_are_stretched_from_the_smallest_to_the_largest_and_a_marker_near_others_is_a_value(values: list[float], grey: list[int]) -> None:
    assert read(float_tiff(np.array([values], np.float32)))[0, :, 0].tolist() == grey


@pytest.mark.parametrize(("marker", "largest"), [(65_535, 1000), (-32_768, 1000), (2**31 - 1, 1000), (-(2**31), 70_000), (9999, 500)])
def test_usual_markers_in_a_tiff_of_integers_do_not_darken_it(marker: int, largest: int) -> None:
    values = np.array([[0, largest // 2, largest, marker]], np.int32)
    assert read(encode_image(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 127, 255, 0]


GREY_ALPHA: Final = np.dstack([GREY, np.linspace(0, 255, GREY.size).reshape(GREY.shape)]).astype(np.uint8)


def tiff_with_alpha(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], extra: int | None, order: str = "<") -> bytes:
    samples = pixels.shape[2]
    fields = {256: 40, 257: 30, 258: 8, 259: 1, 262: 1 if samples == 2 else 2, 273: 8, 277: samples, 278: 30, 279: pixels.size}
    return build_tiff(order, fields | ({} if extra is None else {338: extra}), pixels=pixels.tobytes())


@pytest.mark.parametrize("order", "<>")
def test_a_grey_tiff_with_a_second_channel_is_decoded(order: str) -> None:
    grey, alpha = GREY_ALPHA[..., 0].astype(int), GREY_ALPHA[..., 1].astype(int)
    for extra in (None, 0):
        assert np.array_equal(read(tiff_with_alpha(GREY_ALPHA, extra, order))[..., 0], grey)
    composed = (grey * alpha + 255 * (255 - alpha)) / 255
    assert np.abs(read(tiff_with_alpha(GREY_ALPHA, 2, order))[..., 0] - composed).max() <= 1
    premultiplied = np.dstack([np.round(grey * alpha / 255), alpha]).astype(np.uint8)
    assert np.abs(read(tiff_with_alpha(premultiplied, 1, order))[..., 0] - composed).max() <= 1


@pytest.mark.parametrize("order", "<>")
def test_colours_that_are_multiplied_by_the_opacity_are_shown_on_white(order: str) -> None:
    colours, alpha = np.asarray(IMAGE).astype(int), GREY_ALPHA[..., 1:].astype(int)
    premultiplied = np.dstack([np.round(colours * alpha / 255), alpha]).astype(np.uint8)
    assert np.abs(read(tiff_with_alpha(premultiplied, 1, order)) - (colours * alpha + 255 * (255 - alpha)) / 255).max() <= 1


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("extra", [None, 0, 1, 2])
def test_a_tiff_whose_opacity_is_nowhere_set_is_opaque(order: str, extra: int | None) -> None:
    pixels = np.dstack([np.asarray(IMAGE), np.zeros((30, 40), np.uint8)])
    assert np.array_equal(read(tiff_with_alpha(pixels, extra, order)), np.asarray(IMAGE))
    grey = np.dstack([GREY, np.zeros((30, 40), np.uint8)])
    assert np.array_equal(read(tiff_with_alpha(grey, extra, order))[..., 0], GREY)


def test_a_tiff_with_several_extra_samples_is_shown_on_white() -> None:
    pixels = np.dstack([np.full((30, 40, 3), 100, np.uint8), np.full((30, 40), 128, np.uint8), np.zeros((30, 40, 2), np.uint8)])
    whole = tiff_with_alpha(pixels, 1)
    at = whole.rindex(struct.pack("<HHI", 338, 4, 1))
    meanings = struct.pack("<3H", 1, 0, 0)
    data = whole[:at] + struct.pack("<HHII", 338, 3, 3, len(whole)) + whole[at + 12 :] + meanings
    assert (read(data) == 100 + 255 - 128).all()
