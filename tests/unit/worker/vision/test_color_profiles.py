"""Colour profiles: all images become sRGB; a damaged or unsuitable profile changes nothing."""

import io
import threading
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from shared.variants import RENDITION
from tests.support.crafted_images import (
    draw_image,
    encode_image,
    encode_ycck_jpeg,
    grey_ink_profile,
    wide_gamut_profile,
    with_jpeg_segment,
)
from worker.vision import color_profiles, describe, image_steps, imaging
from worker.vision.imaging import Rgb

MAX: Final = 50_000_000
WIDE: Final = wide_gamut_profile()
SRGB: Final = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOURS: Final = [(60, 180, 60), (200, 60, 50), (30, 60, 160), (128, 128, 128), (0, 0, 0), (255, 255, 255)]
OPTIONS: Final[dict[str, dict[str, Any]]] = {"JPEG": {"quality": 100, "subsampling": 0}, "PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}


def patches() -> Image.Image:
    """Return an image with a square of each colour."""
    return Image.fromarray(np.repeat(np.repeat(np.array([COLOURS], np.uint8), 32, 0), 32, 1))


def read(data: bytes) -> Rgb:
    return imaging.decode(data, max_pixels=MAX).rgb


def centres(rgb: Rgb) -> Rgb:
    return rgb[16, 16::32]


def expected() -> NDArray[np.float64]:
    """Return the colours in sRGB, computed with the formulas of ``wide_gamut_profile`` and of IEC 61966-2-1."""
    to_xyz = np.array([[0.7977, 0.1352, 0.0313], [0.2880, 0.7119, 0.0001], [0, 0, 0.8249]])
    srgb_to_xyz = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
    linear = (np.array(COLOURS) / 255) ** 2.2 @ to_xyz.T @ np.linalg.inv(srgb_to_xyz).T
    clipped = linear.clip(0, 1)
    encoded: NDArray[np.float64] = np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)
    return encoded * 255


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_colours_of_a_wide_gamut_become_srgb(kind: str) -> None:
    data = encode_image(patches(), kind, icc_profile=WIDE, **OPTIONS[kind])
    found = centres(read(data))
    assert np.abs(found - expected()).max() <= 4
    assert np.abs(found.astype(int) - COLOURS).max() > 30


@pytest.mark.parametrize("kind", OPTIONS)
def test_every_derived_image_has_these_colours_and_no_profile(kind: str) -> None:
    data = encode_image(patches(), kind, icc_profile=WIDE, **OPTIONS[kind])
    decoded = imaging.decode(data, max_pixels=MAX)
    prepared = image_steps.finish(image_steps.prepare(decoded, image_id="a", declared=None), [], ["horizontal_flip"], "cpu")
    assert set(prepared.files) == {"thumb", "boxes", "horizontal_flip"} | ({RENDITION} if kind != "JPEG" else set())
    for name, file in prepared.files.items():
        image = Image.open(io.BytesIO(file))
        assert "icc_profile" not in image.info
        found = centres(np.asarray(image))[:: -1 if name == "horizontal_flip" else 1]
        assert np.abs(found - expected()).max() <= 8
    described = describe.describe_image(data, max_pixels=MAX)
    assert described.fields["icc"] == "wide"
    assert "#3cb43c" not in {colour["hex"] for colour in described.fields["dominant_colors"]}


def test_a_reduced_image_is_converted_and_turned() -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    data = encode_image(patches().resize((1920, 320), Image.Resampling.NEAREST), "JPEG", icc_profile=WIDE, exif=exif, quality=100)
    rgb = imaging.decode(data, max_pixels=MAX, min_side=700).rgb
    assert rgb.shape == (720, 120, 3)
    assert np.abs(rgb[60::120, 60] - expected()).max() <= 4


def test_an_srgb_profile_changes_nothing_and_is_recognized_by_its_colours() -> None:
    for kind, options in OPTIONS.items():
        with_profile, without = (read(encode_image(patches(), kind, **options, **more)) for more in ({"icc_profile": SRGB}, {}))
        assert np.array_equal(with_profile, without)
    assert color_profiles._find_transform(SRGB, "RGB") is None
    assert color_profiles._find_transform(WIDE, "RGB") is not None


def test_transforms_are_cached_by_the_profile_and_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[bytes] = []
    build = color_profiles._build_transform

    def spy(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
        built.append(profile)
        return build(profile, mode)

    monkeypatch.setattr(color_profiles, "_build_transform", spy)
    profiles = [wide_gamut_profile(1 + step / 100) for step in range(40)]
    for profile in profiles:
        for _ in range(3):
            color_profiles.to_srgb(np.asarray(patches()), profile, "RGB")
    assert built == profiles
    assert len(color_profiles._cache) <= 16


def test_threads_convert_at_the_same_time_with_the_same_result() -> None:
    pixels = np.asarray(draw_image(size=(640, 480)))
    wanted, found = color_profiles.to_srgb(pixels, WIDE, "RGB"), []
    threads = [threading.Thread(target=lambda: found.append(color_profiles.to_srgb(pixels, WIDE, "RGB"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [np.array_equal(rgb, wanted) for rgb in found] == [True] * 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_grey_image_is_converted_with_a_grey_profile_only(kind: str) -> None:
    grey = patches().convert("L")
    options = {"quality": 100} if kind == "JPEG" else {}
    plain = read(encode_image(grey, kind, **options))
    linear = read(encode_image(grey, kind, icc_profile=wide_gamut_profile(1.0, space=b"GRAY"), **options))
    assert centres(linear)[3].tolist() == [188] * 3  # the middle of linear light in sRGB
    assert np.array_equal(read(encode_image(grey, kind, icc_profile=WIDE, **options)), plain)
    colour = encode_image(patches(), kind, icc_profile=wide_gamut_profile(1.0, space=b"GRAY"), **options)
    assert np.array_equal(read(colour), read(encode_image(patches(), kind, **options)))


def test_cmyk_is_converted_with_the_profile_of_its_inks() -> None:
    profile = grey_ink_profile()
    inks = np.array([[(0, 0, 0, 0), (255, 0, 0, 0), (255, 255, 0, 0), (0, 0, 0, 255)]], np.uint8)
    image = Image.fromarray(np.repeat(np.repeat(inks, 32, 0), 32, 1), "CMYK")
    for kind, options in (("JPEG", {"quality": 100}), ("TIFF", {})):
        found = read(encode_image(image, kind, icc_profile=profile, **options))[16, 16::32].astype(int)
        assert np.abs(found - [[255] * 3, [162] * 3, [78] * 3, [0] * 3]).max() <= 4  # L* of 100, 67, 33 and 0


def test_cmyk_without_a_suitable_profile_is_converted_as_by_pillow() -> None:
    for image in (encode_image(patches().convert("CMYK"), "JPEG"), encode_ycck_jpeg(patches())):
        for profile in (WIDE, SRGB, b"nonsense"):
            odd = with_jpeg_segment(image, 0xE2, b"ICC_PROFILE\0\1\1" + profile)
            assert np.array_equal(read(odd), np.asarray(Image.open(io.BytesIO(image)).convert("RGB")))


@pytest.mark.parametrize(
    "profile",
    [
        b"nonsense", WIDE[:200], WIDE[:128], bytes(600), WIDE[:36] + b"xxxx" + WIDE[40:], WIDE[:12] + b"link" + WIDE[16:], WIDE[:12] + b"nmcl" + WIDE[16:],
        WIDE[:16] + b"Lab " + WIDE[20:], WIDE[:16] + b"CMYK" + WIDE[20:], WIDE.replace(b"rXYZ", b"xXYZ"), WIDE + bytes(4 * 1024**2),
    ],
)  # fmt: skip
def test_a_broken_or_unsuitable_profile_is_treated_as_srgb(profile: bytes) -> None:
    plain = read(encode_image(patches(), "WEBP", lossless=True))
    assert np.array_equal(read(encode_image(patches(), "WEBP", lossless=True, icc_profile=profile)), plain)


def test_only_profiles_of_a_matrix_and_curves_are_read_outside_of_the_sandbox() -> None:
    def is_plain(profile: bytes) -> bool:
        return imaging.is_plain_jpeg(encode_image(patches(), "JPEG", icc_profile=profile), max_pixels=MAX)

    for profile in (SRGB, WIDE, wide_gamut_profile(1.8), wide_gamut_profile(space=b"GRAY")):
        assert is_plain(profile)
    table = wide_gamut_profile(extra_tags={b"A2B0": b"mft2" + bytes(60)})
    curve = wide_gamut_profile(extra_tags={b"rTRC": b"mpet" + bytes(60)})
    many = wide_gamut_profile(extra_tags={b"x%03d" % number: bytes(8) for number in range(60)})
    for profile in (table, curve, many, WIDE + b"\0", WIDE[:-1], b"nonsense", bytes(600), wide_gamut_profile(extra_tags={b"view": bytes(70_000)})):
        assert not is_plain(profile)
    incomplete = with_jpeg_segment(encode_image(patches(), "JPEG"), 0xE2, b"ICC_PROFILE\0\1\2" + table)
    assert imaging.is_plain_jpeg(incomplete, max_pixels=MAX)
