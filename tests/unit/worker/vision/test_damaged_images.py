"""Damage: every kind has an error code, and complete images with other bytes around them are not damaged."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.crafted_images import build_png, interlaced_png_rows, png_chunk, with_jpeg_segment
from tests.unit.worker.vision.encoding import MAX, encoded, noise, several, srgb
from worker.vision import formats, imaging
from worker.vision.errors import VisionError


@settings(several, max_examples=60)
@given(mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]), width=st.integers(1, 40), height=st.integers(1, 12))
def test_a_png_is_complete_with_all_bytes_of_its_rows_and_truncated_without_the_last(mode: str, width: int, height: int) -> None:
    grey = noise((width, height)).convert("L")
    whole = encoded(Image.fromarray(np.asarray(grey).astype(np.uint16)) if mode == "I;16" else grey.convert(mode), "PNG")
    begin = whole.index(b"IDAT") + 4
    rows = zlib.decompress(whole[begin : whole.index(b"IEND")])
    formats.png.check_pixels(whole)
    short = png_chunk(b"IDAT", zlib.compress(rows[:-1]))
    with pytest.raises(VisionError, match="truncated"):
        formats.png.check_pixels(whole[: begin - 8] + short + png_chunk(b"IEND", b""))


@settings(several, max_examples=60)
@given(width=st.integers(1, 20), height=st.integers(1, 20))
def test_an_interlaced_png_is_complete_with_all_bytes_of_its_rows_and_truncated_without_the_last(width: int, height: int) -> None:
    rows = interlaced_png_rows(noise((width, height)))
    formats.png.check_pixels(build_png((width, height), zlib.compress(rows), interlaced=1))
    with pytest.raises(VisionError, match="truncated"):
        formats.png.check_pixels(build_png((width, height), zlib.compress(rows[:-1]), interlaced=1))


def test_every_kind_of_damage_has_an_error_code() -> None:
    whole = encoded(noise((320, 240)), "JPEG")
    cases = {
        b"": "empty",
        b"hello": "unsupported_format",
        whole[: len(whole) // 2]: "truncated",
        whole[:-3]: "truncated",
        encoded(noise(), "PNG")[:-200]: "truncated",
        b"\x89PNG\r\n\x1a\n1234": "truncated",
        b"\x89PNG\r\n\x1a\n\0\0\0\0IEND\xaeB`\x82": "corrupt",
    }
    for data, code in cases.items():
        with pytest.raises(VisionError) as caught:
            imaging.decode(data, max_pixels=MAX)
        assert caught.value.code == code


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
def test_bytes_after_the_end_of_an_image_are_ignored(options: dict[str, Any]) -> None:
    whole = encoded(noise((320, 240)), "JPEG", **options)
    for tail in (bytes(6000), b"\xff\xda" * 3000, b"\xff\xe0\x00" * 3000):
        assert np.array_equal(imaging.decode(whole + tail, max_pixels=MAX).rgb, imaging.decode(whole, max_pixels=MAX).rgb)
        with pytest.raises(VisionError) as caught:
            imaging.decode(whole[: len(whole) // 2] + tail, max_pixels=MAX)
        assert caught.value.code in {"truncated", "corrupt"}


def test_the_pixel_limit_is_applied_before_anything_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(VisionError) as caught:
        imaging.decode(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")), max_pixels=MAX)
    assert caught.value.code == "too_many_pixels"


def test_a_jpeg_with_more_segments_than_a_colour_profile_and_a_camera_need_is_corrupt() -> None:
    whole = encoded(noise(), "JPEG")
    profile = srgb() + bytes(254 * 65_519)
    assert imaging.decode(encoded(noise(), "JPEG", icc_profile=profile), max_pixels=MAX).profile == profile
    with pytest.raises(VisionError, match="corrupt"):
        imaging.decode(with_jpeg_segment(whole, 0xE1, b"Exif\0\0" + bytes(2000), 5000), max_pixels=MAX)


def test_bytes_between_the_segments_of_a_jpeg_are_removed() -> None:
    whole = encoded(noise(), "JPEG")
    assert formats.normalize("jpeg", whole) == whole
    assert formats.normalize("jpeg", whole[:2] + b"\xff" * 1000 + whole[2:]) == whole
    hidden = with_jpeg_segment(whole, 0xF0, with_jpeg_segment(b"\xff\xd8", 0xE1, b"Exif\0\0", 1000))
    assert formats.normalize("jpeg", hidden) == whole
