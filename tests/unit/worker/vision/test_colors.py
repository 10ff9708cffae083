"""Dominant colours: the drawn colours with their shares."""

from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pytest

from tests.support import paths
from worker.vision import colors, imaging
from worker.vision.imaging import Rgb

SAMPLES: Final = sorted(paths.SAMPLES.glob("*.jpg"))
RED, GREEN, BLUE, WHITE, BLACK = (200, 30, 30), (30, 160, 60), (20, 40, 190), (250, 250, 250), (10, 10, 10)


def stripes(*drawn: tuple[tuple[int, int, int], int], height: int = 100) -> Rgb:
    """Return an image of vertical stripes, each given by its colour and its width in pixels."""
    row = np.concatenate([np.full((width, 3), colour, np.uint8) for colour, width in drawn])
    return np.ascontiguousarray(np.broadcast_to(row, (height, *row.shape)))


def distance(found: dict[str, Any], colour: tuple[int, int, int]) -> int:
    """Return the largest absolute difference of a channel."""
    return int(np.abs(np.subtract(tuple(bytes.fromhex(found["hex"][1:])), colour)).max())


def test_a_uniform_image_has_one_colour() -> None:
    for size in ((1, 1), (3, 900), (480, 640)):
        assert colors.dominant_colors(np.full((*size, 3), (18, 52, 86), np.uint8)) == [{"hex": "#123456", "share": 1.0}]


def test_every_drawn_colour_is_found_with_its_share_the_largest_first() -> None:
    drawn = [(BLUE, 320), (RED, 192), (WHITE, 64), (GREEN, 64)]
    found = colors.dominant_colors(stripes(*drawn))
    assert [color["share"] for color in found] == pytest.approx([0.5, 0.3, 0.1, 0.1], abs=0.01)
    for (colour, _), color in zip(drawn[:2], found[:2], strict=True):
        assert distance(color, colour) <= 3
    assert {min(range(2), key=lambda index: distance(color, (WHITE, GREEN)[index])) for color in found[2:]} == {0, 1}


def test_similar_colours_are_merged_and_noise_has_its_mean_colour() -> None:
    shades = colors.dominant_colors(stripes(((200, 30, 30), 300), ((206, 34, 33), 200), ((60, 60, 200), 140)))
    assert len(shades) == 2
    assert distance(shades[0], (202, 32, 31)) <= 3
    noisy = np.random.default_rng(1).normal(128, 20, (480, 640, 3)).clip(0, 255).astype(np.uint8)
    (grey,) = colors.dominant_colors(noisy)
    assert distance(grey, (128, 128, 128)) <= 3


def test_at_most_the_requested_number_is_returned_and_blended_edges_are_not_colours() -> None:
    many = stripes(*[(colour, 97) for colour in (RED, GREEN, BLUE, WHITE, BLACK, (230, 200, 20))])
    for count in (1, 3, 5):
        assert len(colors.dominant_colors(many, count)) == count
    assert len(colors.dominant_colors(stripes((RED, 331), (GREEN, 309)), 5)) == 2


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_colours_occur_in_the_image_and_are_the_same_every_time(path: Path) -> None:
    rgb = imaging.decode(path.read_bytes(), max_pixels=50_000_000).rgb
    found = colors.dominant_colors(rgb)
    assert found == colors.dominant_colors(rgb.copy())
    shares = [color["share"] for color in found]
    assert sum(shares) == pytest.approx(1, abs=0.005)
    assert shares == sorted(shares, reverse=True)
    small = cv2.resize(rgb, (64, 64), interpolation=cv2.INTER_AREA)
    for color in found:
        near = np.abs(small.astype(int) - tuple(bytes.fromhex(color["hex"][1:]))).max(2) < 40
        assert near.mean() > color["share"] / 10
