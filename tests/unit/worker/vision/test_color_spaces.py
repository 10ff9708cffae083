"""Colours that a file describes without an ICC profile, or with one in a place that Pillow does not read."""

import struct
import zlib
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.support.crafted_images import build_png, encode_image, png_chunk, png_rows, wide_gamut_profile
from worker.vision import imaging
from worker.vision.imaging import Rgb

MAX: Final = 50_000_000
COLOURS: Final = [(60, 180, 60), (200, 60, 50), (30, 60, 160), (128, 128, 128), (0, 0, 0), (255, 255, 255)]
D65: Final = (0.3127, 0.3290)
SRGB: Final = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
ADOBE: Final = (*D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
P3: Final = (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
BT2020: Final = (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)


def patches() -> Image.Image:
    """Return an image with a square of each colour."""
    return Image.fromarray(np.repeat(np.repeat(np.array([COLOURS], np.uint8), 32, 0), 32, 1))


def read(data: bytes) -> Rgb:
    return imaging.decode(data, max_pixels=MAX).rgb[16, 16::32]


def matrix(points: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the matrix from linear RGB to XYZ (SMPTE RP 177)."""
    white, *primaries = [np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(points[::2], points[1::2], strict=True)]
    columns = np.column_stack(primaries)
    return np.asarray(columns * (np.linalg.inv(columns) @ white))


def expected(points: tuple[float, ...], gamma: float) -> NDArray[np.float64]:
    """Return the colours in sRGB, computed without ICC profiles. All colour spaces here have the same white."""
    encoded = np.array(COLOURS) / 255
    srgb = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    linear = encoded**gamma if gamma else srgb
    linear = (linear @ matrix(points).T @ np.linalg.inv(matrix(SRGB)).T).clip(0, 1)
    found: NDArray[np.float64] = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    return found


def png(*chunks: bytes) -> bytes:
    return build_png((192, 32), zlib.compress(png_rows(patches())), b"".join(chunks))


def gamma_chunk(exponent: float) -> bytes:
    return png_chunk(b"gAMA", struct.pack(">I", round(exponent * 100_000)))


def chromaticity_chunk(points: tuple[float, ...]) -> bytes:
    return png_chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in points)))


def code_points_chunk(*values: int) -> bytes:
    return png_chunk(b"cICP", bytes(values))


@pytest.mark.parametrize(
    ("chunks", "points", "gamma"),
    [
        ([gamma_chunk(1 / 2.2), chromaticity_chunk(ADOBE)], ADOBE, 2.2),
        ([gamma_chunk(1.0)], SRGB, 1.0),
        ([gamma_chunk(1.0), chromaticity_chunk(P3)], P3, 1.0),
        ([gamma_chunk(1 / 1.8)], SRGB, 1.8),
        ([code_points_chunk(12, 13, 0, 1)], P3, 0),
        ([code_points_chunk(9, 13, 0, 1)], BT2020, 0),
        ([code_points_chunk(12, 8, 0, 1)], P3, 1.0),
        ([code_points_chunk(9, 1, 0, 1)], BT2020, 0),
        ([code_points_chunk(12, 13, 0, 1), gamma_chunk(1.0), png_chunk(b"sRGB", b"\0")], P3, 0),
        ([code_points_chunk(12, 16, 0, 1), gamma_chunk(1.0)], SRGB, 1.0),
    ],
)  # fmt: skip
def test_the_colours_of_a_png_become_srgb(chunks: list[bytes], points: tuple[float, ...], gamma: float) -> None:
    found = read(png(*chunks))
    assert np.abs(found - expected(points, gamma)).max() <= 3
    assert np.abs(found.astype(int) - COLOURS).max() > 10


@pytest.mark.parametrize(
    "chunks",
    [
        [], [gamma_chunk(1 / 2.2)], [gamma_chunk(0.45455), chromaticity_chunk(SRGB)], [png_chunk(b"sRGB", b"\0"), gamma_chunk(1.0)], [chromaticity_chunk(P3)], [gamma_chunk(0)],
        [png_chunk(b"gAMA", b"\xff" * 4)], [gamma_chunk(0.0001)], [png_chunk(b"gAMA", b"\0\1")], [gamma_chunk(1.0)[:-1] + b"x"], [gamma_chunk(0.3), chromaticity_chunk((0,) * 8)],
        [gamma_chunk(0.3), chromaticity_chunk((0.3,) * 8)], [gamma_chunk(0.3), png_chunk(b"cHRM", b"\xff" * 32)], [code_points_chunk(1, 13, 0, 1)], [code_points_chunk(9, 16, 0, 1)],
        [code_points_chunk(9, 18, 0, 1)], [code_points_chunk(2, 2, 0, 1)], [code_points_chunk(12, 13, 1, 1)], [code_points_chunk(12, 13, 0, 0)], [code_points_chunk(255, 255, 255, 255)],
        [png_chunk(b"cICP", b"\x0c")],
    ],
)  # fmt: skip
def test_a_png_of_srgb_or_of_unsupported_colours_is_unchanged(chunks: list[bytes]) -> None:
    assert np.array_equal(read(png(*chunks)), COLOURS)


def test_a_colour_profile_goes_before_a_gamma_but_not_before_code_points() -> None:
    profile = png_chunk(b"iCCP", b"wide\0\0" + zlib.compress(wide_gamut_profile()))
    with_profile = read(png(profile))
    assert np.array_equal(read(png(profile, gamma_chunk(1.0), chromaticity_chunk(P3))), with_profile)
    assert np.abs(read(png(code_points_chunk(12, 13, 0, 1), profile)) - expected(P3, 0)).max() <= 3
    assert imaging.decode(png(code_points_chunk(12, 13, 0, 1), profile), max_pixels=MAX).icc == "wide"


def test_a_gamma_applies_to_a_grey_png_too() -> None:
    grey = patches().convert("L")
    rows = zlib.compress(png_rows(grey))
    plain = build_png(grey.size, rows, colour_type=0)
    linear = read(build_png(grey.size, rows, gamma_chunk(1.0), colour_type=0))
    assert np.array_equal(read(plain)[:, 0], np.asarray(grey)[16, 16::32])
    assert linear[3].tolist() == [188] * 3


@pytest.mark.parametrize(("primaries", "transfer", "points", "gamma"), [(12, 13, P3, 0), (9, 13, BT2020, 0), (12, 1, P3, 0), (1, 8, SRGB, 1.0), (9, 4, BT2020, 2.2)])
def test_the_colours_of_an_avif_become_srgb(primaries: int, transfer: int, points: tuple[float, ...], gamma: float) -> None:
    whole = encode_image(patches(), "AVIF", quality=100, subsampling="4:4:4")
    at = whole.index(b"colrnclx") + 8
    assert np.abs(read(whole).astype(int) - COLOURS).max() <= 3
    found = read(whole[:at] + struct.pack(">HH", primaries, transfer) + whole[at + 4 :])
    assert np.abs(found - expected(points, gamma)).max() <= 8  # the compression changes the colours a little
    assert np.abs(found.astype(int) - COLOURS).max() > 10
    for unsupported in ((9, 16), (2, 2), (12, 18), (1, 13), (65_535, 65_535)):
        assert np.array_equal(read(whole[:at] + struct.pack(">HH", *unsupported) + whole[at + 4 :]), read(whole))


def bmp_with_profile(profile: bytes, kind: bytes = b"DEBM", length: int | None = None) -> bytes:
    """Return a BMP with a BITMAPV5HEADER and a colour profile after the pixels."""
    pixels = np.ascontiguousarray(np.asarray(patches())[::-1, :, ::-1]).tobytes()
    head = struct.pack("<IiiHHIIiiII", 124, 192, 32, 1, 24, 0, len(pixels), 2835, 2835, 0, 0) + bytes(16) + kind
    head = head.ljust(112, b"\0") + struct.pack("<II", 124 + len(pixels), len(profile) if length is None else length) + bytes(4)
    return b"BM" + struct.pack("<IHHI", 138 + len(pixels) + len(profile), 0, 0, 138) + head + pixels + profile


def test_the_profile_in_a_bmp_is_used() -> None:
    decoded = imaging.decode(bmp_with_profile(wide_gamut_profile()), max_pixels=MAX)
    assert decoded.icc == "wide"
    assert np.array_equal(decoded.rgb[16, 16::32], read(encode_image(patches(), "PNG", icc_profile=wide_gamut_profile())))


@pytest.mark.parametrize(
    "data",
    [
        bmp_with_profile(wide_gamut_profile(), b"BGRs"), bmp_with_profile(wide_gamut_profile(), b"KNIL"), bmp_with_profile(b"nonsense"), bmp_with_profile(b""),
        bmp_with_profile(wide_gamut_profile(), length=10_000), bmp_with_profile(wide_gamut_profile(), length=2**32 - 1),
    ],
)  # fmt: skip
def test_a_bmp_without_a_usable_profile_is_unchanged(data: bytes) -> None:
    assert np.array_equal(read(data), COLOURS)


def test_an_srgb_profile_and_one_that_is_built_for_srgb_change_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(read(bmp_with_profile(srgb)), COLOURS)
    assert np.array_equal(read(png(code_points_chunk(1, 13, 0, 1))), COLOURS)
