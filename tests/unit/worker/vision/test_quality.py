"""Quality measures, and the perceptual hash: close for variations of one image, far apart for different images."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pytest
from PIL import Image

from shared import perceptual_hashes
from tests.support import paths
from worker.vision import imaging, quality
from worker.vision.imaging import Rgb

SAMPLES: Final = sorted(paths.SAMPLES.glob("*.jpg"))
SHELVES: Final = [path for path in SAMPLES if path.name.startswith("shelf")]


def read(path: Path) -> Rgb:
    return imaging.decode(path.read_bytes(), max_pixels=50_000_000).rgb


def distance(first: Rgb, second: Rgb) -> int:
    """Return the Hamming distance of two perceptual hashes."""
    return perceptual_hashes.distance(*(quality.perceptual_hash(quality.luma(rgb)) for rgb in (first, second)))


def reference(rgb: Rgb) -> str:
    """Compute the hash as imagehash does: with Pillow's filter, and X_k = sum of x_n cos(pi (2n + 1) k / 2N) in both directions."""
    grey = np.asarray(Image.fromarray(rgb).convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    k, n = np.arange(8)[:, None], np.arange(32)[None]
    basis = np.cos(np.pi * (2 * n + 1) * k / 64)
    low = basis @ grey @ basis.T
    bits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
    return f"{int(bits, 2):016x}"


def compressed(rgb: Rgb) -> Rgb:
    return imaging.decode(imaging.encode_jpeg(rgb, 40), max_pixels=50_000_000).rgb


def smaller(rgb: Rgb) -> Rgb:
    return imaging.thumbnail(rgb, max(rgb.shape) // 3)


def darker(rgb: Rgb) -> Rgb:
    return cv2.convertScaleAbs(rgb, alpha=0.8)  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_hash_differs_in_at_most_two_bits_from_that_of_imagehash(path: Path) -> None:
    rgb = read(path)
    large = cv2.resize(rgb, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    for image in (rgb, large, smaller(rgb)):
        assert perceptual_hashes.distance(quality.perceptual_hash(quality.luma(image)), reference(image)) <= 2


@pytest.mark.parametrize("vary", [compressed, smaller, darker])
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_variations_of_an_image_have_nearly_the_same_hash(
    path: Path, vary: Callable[[Rgb], Rgb]
) -> None:
    rgb = read(path)
    assert distance(rgb, vary(rgb)) <= 6


def test_different_images_have_distant_hashes() -> None:
    for first, second in itertools.combinations(map(read, SHELVES), 2):
        assert distance(first, second) >= 16


def test_the_hash_of_an_image_of_any_size_has_sixteen_hex_digits() -> None:
    for size in ((1, 1), (5, 400), (32, 32)):
        found = quality.perceptual_hash(quality.luma(np.full((*size, 3), 90, np.uint8)))
        assert len(found) == 16
        assert int(found, 16) >> 63 == 1  # a uniform image has only the constant component


def test_quality_separates_dark_from_bright_and_blurred_from_sharp() -> None:
    rgb = read(SHELVES[0])
    found, dark, blurred = (
        quality.measure(quality.luma(image)) for image in (rgb, (rgb * 0.3).astype(np.uint8), cv2.GaussianBlur(rgb, (0, 0), 6))
    )
    assert dark["brightness"] < found["brightness"] / 2
    assert blurred["sharpness"] < found["sharpness"] / 4
