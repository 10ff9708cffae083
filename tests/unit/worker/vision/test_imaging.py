"""Every format and mode is decoded to the same upright RGB image."""

import io
import struct
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import AvifImagePlugin, Image, ImageOps, _avif

from tests.support.crafted_images import build_tiff, encode_ycck_jpeg
from tests.unit.worker.vision.encoding import MAX, RED, encoded, noise
from worker.vision import imaging
from worker.vision.errors import VisionError


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (RED, "JPEG"), (RED.convert("CMYK"), "JPEG"), (RED, "PNG"), (RED.convert("RGBA"), "PNG"), (RED, "WEBP"),
        (RED, "BMP"), (RED, "TIFF"), (RED, "AVIF"),
    ],
)  # fmt: skip
def test_every_format_and_mode_decodes_to_the_same_red(image: Image.Image, kind: str) -> None:
    decoded = imaging.decode(encoded(image, kind), max_pixels=MAX)
    assert (decoded.format, decoded.width, decoded.height) == (kind.lower(), 40, 30)
    assert decoded.rgb.flags.c_contiguous
    assert np.abs(decoded.rgb[15, 20].astype(int) - (200, 30, 30)).max() <= 4


def test_16_bit_palette_grey_and_transparent_images_become_rgb() -> None:
    sixteen_bit = imaging.decode(encoded(Image.fromarray(np.full((30, 40), 40_000, np.uint16)), "PNG"), max_pixels=MAX)
    assert tuple(sixteen_bit.rgb[0, 0]) == (155, 155, 155)
    transparent = imaging.decode(encoded(Image.new("RGBA", (40, 30), (0, 0, 0, 0)), "PNG"), max_pixels=MAX)
    assert tuple(transparent.rgb[0, 0]) == (255, 255, 255)
    for mode in ("P", "L", "1", "LA"):
        assert imaging.decode(encoded(RED.convert(mode), "PNG"), max_pixels=MAX).rgb.shape == (30, 40, 3)


@pytest.mark.parametrize(
    ("bits", "form", "zero", "values", "grey"),
    [
        (12, 1, "black", b"\xff\xff\xff\x80\x00\x00", [255, 255, 127, 0]),
        (16, 1, "black", struct.pack("<4H", 65535, 32768, 256, 0), [255, 127, 0, 0]),
        (16, 1, "white", struct.pack("<4H", 65535, 32768, 256, 0), [0, 128, 255, 255]),
        (16, 2, "black", struct.pack("<4h", 255, 128, 1, 0), [255, 128, 1, 0]),
        (32, 2, "black", struct.pack("<4i", 255, 128, 1, 0), [255, 128, 1, 0]),
        (32, 1, "black", struct.pack("<4I", 2**32 - 1, 2**31, 2**24, 0), [255, 127, 0, 0]),
        (32, 3, "black", struct.pack("<4f", 2, 1, 0.5, 0), [255, 127, 63, 0]),
        (32, 3, "white", struct.pack("<4f", 2, 1, 0.5, 0), [0, 128, 192, 255]),
    ],
)
def test_grey_of_more_than_8_bits_keeps_its_brightness(bits: int, form: int, zero: str, values: bytes, grey: list[int]) -> None:
    fields = {256: 4, 257: 1, 258: bits, 259: 1, 262: 0 if zero == "white" else 1, 273: 8, 277: 1, 278: 1, 279: len(values), 339: form}
    assert imaging.decode(build_tiff("<", fields, pixels=values), max_pixels=MAX).rgb[0, :, 0].tolist() == grey


def test_an_animation_gives_its_first_frame_and_the_number_of_frames() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    decoded = imaging.decode(data, max_pixels=MAX)
    assert decoded.frames == 3
    assert tuple(decoded.rgb[5, 5]) == (255, 0, 0)


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_is_applied_once(turn: int) -> None:
    image = noise()
    exif = Image.Exif()
    exif[0x112] = turn
    data = encoded(image, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert (imaging.decode(data, max_pixels=MAX).rgb == expected).all()


@pytest.mark.parametrize(
    ("image", "kind", "mode"),
    [
        (RED, "JPEG", "RGB"), (RED.convert("L"), "JPEG", "L"), (RED.convert("CMYK"), "JPEG", "CMYK"), (RED.convert("P"), "PNG", "P"),
        (RED.convert("1"), "PNG", "1"), (RED.convert("RGBA"), "PNG", "RGBA"), (RED.convert("LA"), "PNG", "LA"), (RED, "GIF", "P"),
        (Image.new("RGBA", (40, 30), (0, 0, 0, 9)), "WEBP", "RGBA"), (RED.convert("CMYK"), "TIFF", "CMYK"),
        (Image.fromarray(np.full((30, 40), 40_000, np.uint16)), "PNG", "I;16"),
    ],
)  # fmt: skip
def test_the_mode_is_that_of_the_file(image: Image.Image, kind: str, mode: str) -> None:
    decoded = imaging.decode(encoded(image, kind), max_pixels=MAX)
    assert decoded.mode == mode
    assert decoded.rgb.shape == (30, 40, 3)


@pytest.mark.parametrize("make", [lambda image: encoded(image.convert("CMYK"), "JPEG"), encode_ycck_jpeg])
def test_cmyk_is_converted_to_the_same_colours_as_by_pillow(make: Callable[[Image.Image], bytes]) -> None:
    data = make(noise())
    assert np.array_equal(imaging.decode(data, max_pixels=MAX).rgb, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("turn", [1, 6])
def test_a_large_jpeg_is_decoded_at_a_reduced_size_if_that_suffices_and_its_size_is_still_reported(turn: int) -> None:
    exif = Image.Exif()
    exif[0x112] = turn
    image = noise((60, 45)).resize((2400, 1800))
    data = encoded(image, "JPEG", exif=exif)
    whole = imaging.decode(data, max_pixels=MAX)
    small = imaging.decode(data, max_pixels=MAX, min_side=700)
    assert (small.width, small.height) == (whole.width, whole.height) == ((2400, 1800) if turn == 1 else (1800, 2400))
    assert 700 <= max(small.rgb.shape) < 1400
    assert small.rgb.shape[0] * whole.width == small.rgb.shape[1] * whole.height
    size = small.rgb.shape[1::-1]
    assert np.abs(small.rgb.astype(int) - cv2.resize(whole.rgb, size, interpolation=cv2.INTER_AREA)).mean() < 3
    slightly_larger = imaging.decode(encoded(image.resize((1300, 975)), "JPEG"), max_pixels=MAX, min_side=700)
    assert slightly_larger.rgb.shape == (975, 1300, 3)
    with pytest.raises(VisionError, match="truncated"):
        imaging.decode(data[: len(data) // 2], max_pixels=MAX, min_side=700)


def test_only_allowed_exif_fields_are_kept_and_of_a_location_only_its_presence() -> None:
    exif = Image.Exif()
    exif[0x10F], exif[0x13B] = "Maker\0", "the photographer"
    exif.get_ifd(0x8825)[1] = "N"
    found = imaging.decode(encoded(noise(), "JPEG", exif=exif), max_pixels=MAX).exif
    assert found == {"Make": "Maker", "has_gps": True}


def test_a_thumbnail_is_never_enlarged() -> None:
    small, large = np.zeros((30, 40, 3), np.uint8), np.zeros((600, 800, 3), np.uint8)
    assert imaging.thumbnail(small) is small
    assert imaging.thumbnail(large).shape == (240, 320, 3)


def test_the_avif_decoder_uses_no_more_threads_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, thread_counts = _avif.AvifDecoder, []

    def spy(data: bytes, codec: str, threads: int) -> Any:
        thread_counts.append(threads)
        return decoder(data, codec, threads)

    monkeypatch.setattr(_avif, "AvifDecoder", spy)
    monkeypatch.setattr(AvifImagePlugin, "DEFAULT_MAX_THREADS", 0)  # restored after the test
    previous = cv2.getNumThreads()
    imaging.limit_threads(3)
    try:
        imaging.decode(encoded(RED, "AVIF"), max_pixels=MAX)
    finally:
        cv2.setNumThreads(previous)
    assert thread_counts == [3]
