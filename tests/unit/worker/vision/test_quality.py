"""Measures of a picture: dark and blurred ones are told; its fingerprint is near for the same picture taken otherwise, far for another."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pytest

from tests.support import paths
from worker.vision import imaging, quality
from worker.vision.imaging import Rgb

SAMPLES: Final = sorted(paths.SAMPLES.glob("*.jpg"))
SHELVES: Final = [path for path in SAMPLES if path.name.startswith("shelf")]


def read(path: Path) -> Rgb:
    return imaging.decode(path.read_bytes(), max_pixels=50_000_000).rgb


def distance(one: Rgb, other: Rgb) -> int:
    """Count the bits in which two fingerprints differ."""
    return (int(quality.perceptual_hash(one), 16) ^ int(quality.perceptual_hash(other), 16)).bit_count()


def reference(rgb: Rgb) -> str:
    """Write the definition down: X_k = sum of x_n cos(pi (2n + 1) k / 2N) both ways."""
    grey = cv2.resize(rgb, (32, 32), interpolation=cv2.INTER_AREA) @ np.array([0.299, 0.587, 0.114])
    order, place = np.arange(8)[:, None], np.arange(32)[None]
    waves = np.cos(np.pi * (2 * place + 1) * order / 64)
    low = waves @ np.round(grey) @ waves.T
    bits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
    return f"{int(bits, 2):016x}"


def compressed(rgb: Rgb) -> Rgb:
    return imaging.decode(imaging.encode_jpeg(rgb, 40), max_pixels=50_000_000).rgb


def smaller(rgb: Rgb) -> Rgb:
    return imaging.thumbnail(rgb, max(rgb.shape) // 3)


def darker(rgb: Rgb) -> Rgb:
    return cv2.convertScaleAbs(rgb, alpha=0.8)  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_fingerprint_is_the_sign_of_the_low_frequencies_against_their_median(path: Path) -> None:
    rgb = read(path)
    assert quality.perceptual_hash(rgb) == reference(rgb)


@pytest.mark.parametrize("otherwise", [compressed, smaller, darker])
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_same_picture_taken_otherwise_has_nearly_the_same_fingerprint(
    path: Path, otherwise: Callable[[Rgb], Rgb]
) -> None:
    rgb = read(path)
    assert distance(rgb, otherwise(rgb)) <= 6


def test_different_pictures_have_fingerprints_far_apart() -> None:
    for one, other in itertools.combinations(map(read, SHELVES), 2):
        assert distance(one, other) >= 16


def test_a_fingerprint_of_any_size_is_sixteen_hex_digits() -> None:
    for size in ((1, 1), (5, 400), (32, 32)):
        found = quality.perceptual_hash(np.full((*size, 3), 90, np.uint8))
        assert len(found) == 16
        assert int(found, 16) >> 63 == 1  # an even picture has a constant part only


def test_quality_tells_dark_from_bright_and_blurred_from_sharp() -> None:
    rgb = read(SHELVES[0])
    found = quality.measure(rgb)
    assert quality.measure((rgb * 0.3).astype(np.uint8))["brightness"] < found["brightness"] / 2
    assert quality.measure(cv2.GaussianBlur(rgb, (0, 0), 6))["sharpness"] < found["sharpness"] / 4
