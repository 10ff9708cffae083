"""Augmentations: pixels by OpenCV, boxes by one geometry for all, parameters from a seed.

Each does what its counterpart of ``torchvision.transforms.v2.functional`` (or Pillow) does with the reported parameters.
Coordinates are continuous, as a box's are: the centre of the first pixel lies at (0.5, 0.5). The seed comes from the image's
id, the operation's name and ``RECIPE``, so the same input gives the same bytes again.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.vision.imaging import Rgb, encode_jpeg

RECIPE: Final = 2
KEPT_SHARE: Final = 0.25
"""A box of which less than this share remains in the frame is dropped."""
_HORIZON: Final = 1e-6
_LUMA: Final = np.array([0.299, 0.587, 0.114])
"""Rec. 601, as Pillow and torchvision weigh red, green and blue."""

Rng = np.random.Generator
Matrix = NDArray[np.float64]


@dataclass(slots=True)
class Augmented:
    """A new picture, the parameters that made it, and the boxes that remain, each with the index of the one it was."""

    rgb: Rgb
    params: dict[str, Any]
    boxes: list[tuple[int, list[float]]] = field(default_factory=list)


def apply(name: str, rgb: Rgb, boxes: list[list[float]], *, image_id: str) -> Augmented:
    """Apply one operation.

    :param name: one of ``OPERATIONS``.
    :param boxes: x1, y1, x2, y2 in pixels of ``rgb``.
    """
    seed = hashlib.sha256(f"{image_id}/{name}/{RECIPE}".encode()).digest()
    made, params, matrix = OPERATIONS[name](rgb, np.random.default_rng(int.from_bytes(seed[:8], "big")))
    height, width = made.shape[:2]
    kept = []
    for index, box in enumerate(boxes):
        moved = list(box) if matrix is None else move_box(box, matrix, width, height)
        if moved is not None:
            kept.append((index, moved))
    return Augmented(made, params, kept)


def move_box(box: list[float], matrix: Matrix, width: int, height: int) -> list[float] | None:
    """Move a box by a 3x3 matrix: the upright frame of its corners, clipped.

    :returns: None when less than ``KEPT_SHARE`` of it remains, or when a corner goes to the horizon or behind it.
    """
    x1, y1, x2, y2 = box
    corners = np.array([[x1, y1, 1], [x2, y1, 1], [x2, y2, 1], [x1, y2, 1]]).T
    moved = matrix @ corners
    if moved[2].min() <= _HORIZON:
        return None
    xs, ys = moved[0] / moved[2], moved[1] / moved[2]
    left, top, right, bottom = float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())
    clipped = [max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom)]
    area = max(1e-9, (right - left) * (bottom - top))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return None
    if (clipped[2] - clipped[0]) * (clipped[3] - clipped[1]) / area < KEPT_SHARE:
        return None
    return [round(value, 1) for value in clipped]


_Made = tuple[Rgb, dict[str, Any], Matrix | None]


def _warp(rgb: Rgb, matrix: Matrix, border: int) -> Rgb:
    """Move pixels by a matrix of continuous coordinates."""
    # OpenCV counts from the centre of the first pixel.
    to_edge = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    to_centre = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    moved, size = to_centre @ matrix @ to_edge, (rgb.shape[1], rgb.shape[0])
    four = cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA)  # four channels take a third of the time that three take
    if (moved[2] == [0, 0, 1]).all():
        four = cv2.warpAffine(four, moved[:2], size, borderMode=border)
    else:
        four = cv2.warpPerspective(four, moved, size, borderMode=border)
    made: Rgb = cv2.cvtColor(four, cv2.COLOR_RGBA2RGB)
    return made


def _horizontal_flip(rgb: Rgb, _rng: Rng) -> _Made:
    matrix = np.array([[-1.0, 0, rgb.shape[1]], [0, 1, 0], [0, 0, 1]])
    return cv2.flip(rgb, 1), {}, matrix


def _rotate(rgb: Rgb, rng: Rng) -> _Made:
    degrees = round(float(rng.uniform(-15, 15)), 2)
    height, width = rgb.shape[:2]
    matrix = np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0), [0, 0, 1]])
    return _warp(rgb, matrix, cv2.BORDER_CONSTANT), {"degrees": degrees}, matrix


def _random_crop(rgb: Rgb, rng: Rng) -> _Made:
    share = round(float(rng.uniform(0.6, 0.9)), 3)
    height, width = rgb.shape[:2]
    h, w = max(1, int(height * share)), max(1, int(width * share))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    sx, sy = width / w, height / h
    matrix = np.array([[sx, 0, -x * sx], [0, sy, -y * sy], [0, 0, 1.0]])
    made = cv2.resize(rgb[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_LINEAR)
    return made, {"x": x, "y": y, "width": w, "height": h}, matrix


def _perspective(rgb: Rgb, rng: Rng) -> _Made:
    height, width = rgb.shape[:2]
    shifts = rng.uniform(0, 0.12, (4, 2)).round(3)
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = (corners + shifts * signs * (width, height)).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(corners, moved)
    return _warp(rgb, matrix, cv2.BORDER_REFLECT_101), {"shifts": shifts.tolist()}, matrix


def _shear(rgb: Rgb, rng: Rng) -> _Made:
    factor = round(float(rng.uniform(-0.2, 0.2)), 3)
    matrix = np.array([[1, factor, -factor * rgb.shape[0] / 2], [0, 1, 0], [0, 0, 1.0]])
    return _warp(rgb, matrix, cv2.BORDER_REFLECT_101), {"factor": factor}, matrix


def _color_jitter(rgb: Rgb, rng: Rng) -> _Made:
    brightness, contrast, saturation = (round(float(rng.uniform(0.7, 1.3)), 3) for _ in range(3))
    hue = round(float(rng.uniform(-0.05, 0.05)), 3)
    lit = np.clip(np.arange(256) * brightness, 0, 255)
    mean = float(_LUMA @ cv2.mean(cv2.LUT(rgb, lit.astype(np.uint8)))[:3])
    contrasted = cv2.LUT(rgb, np.clip((lit - mean) * contrast + mean, 0, 255).round().astype(np.uint8))
    # Each channel goes towards the luma, or away from it.
    saturated = cv2.transform(contrasted, np.eye(3) * saturation + (1 - saturation) * _LUMA)
    hsv = cv2.cvtColor(saturated, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(hue * 256) % 256)  # the circle has 256 steps, so a byte wraps as it does
    made = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return made, {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}, None


def _gaussian_blur(rgb: Rgb, rng: Rng) -> _Made:
    sigma = round(float(rng.uniform(0.8, 2.5)), 2)
    return cv2.GaussianBlur(rgb, (0, 0), sigma), {"sigma": sigma}, None


def _motion_blur(rgb: Rgb, rng: Rng) -> _Made:
    length, degrees = int(rng.integers(7, 19)) | 1, round(float(rng.uniform(0, 180)), 1)
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    turn = cv2.getRotationMatrix2D((length / 2 - 0.5, length / 2 - 0.5), degrees, 1)
    kernel = cv2.warpAffine(kernel, turn, (length, length))
    return cv2.filter2D(rgb, -1, kernel / kernel.sum()), {"length": length, "degrees": degrees}, None


def _noise(rgb: Rgb, rng: Rng) -> _Made:
    sigma = round(float(rng.uniform(5, 20)), 2)
    grain = rng.standard_normal(rgb.shape, np.float32)
    grain *= np.float32(sigma)
    return cv2.add(rgb, grain, dtype=cv2.CV_8U), {"sigma": sigma}, None


def _grayscale(rgb: Rgb, _rng: Rng) -> _Made:
    return cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), {}, None


def _equalize(rgb: Rgb, _rng: Rng) -> _Made:
    tables = [_equalizing(cv2.calcHist([rgb], [channel], None, [256], [0, 256]).ravel()) for channel in range(3)]
    return cv2.LUT(rgb, np.stack(tables, 1)[:, None]), {}, None


def _equalizing(histogram: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Make the table ``[256]`` that spreads a channel's values evenly, as ``PIL.ImageOps.equalize`` does."""
    counts = histogram.astype(np.int64)
    step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
    if step == 0:
        return np.arange(256, dtype=np.uint8)
    before = counts.cumsum() - counts
    table: NDArray[np.uint8] = np.minimum((step // 2 + before) // step, 255).astype(np.uint8)
    return table


def _cutout(rgb: Rgb, rng: Rng) -> _Made:
    height, width = rgb.shape[:2]
    made = rgb.copy()
    holes = []
    for _ in range(int(rng.integers(1, 4))):
        h, w = (max(1, int(side * rng.uniform(0.08, 0.2))) for side in (height, width))
        y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        made[y : y + h, x : x + w] = 128
        holes.append([x, y, x + w, y + h])
    return made, {"holes": holes}, None


def _jpeg_artifacts(rgb: Rgb, rng: Rng) -> _Made:
    quality = int(rng.integers(8, 30))
    read = cv2.imdecode(np.frombuffer(encode_jpeg(rgb, quality), np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(read, cv2.COLOR_BGR2RGB), {"quality": quality}, None


def _low_light(rgb: Rgb, rng: Rng) -> _Made:
    gain, sigma = round(float(rng.uniform(0.25, 0.5)), 3), round(float(rng.uniform(3, 8)), 2)
    grain = rng.standard_normal(rgb.shape, np.float32)
    grain *= np.float32(sigma)
    return cv2.addWeighted(rgb, gain, grain, 1, 0, dtype=cv2.CV_8U), {"gain": gain, "sigma": sigma}, None


OPERATIONS: Final[dict[str, Callable[[Rgb, Rng], _Made]]] = {
    "horizontal_flip": _horizontal_flip,
    "rotate": _rotate,
    "random_crop": _random_crop,
    "perspective": _perspective,
    "shear": _shear,
    "color_jitter": _color_jitter,
    "gaussian_blur": _gaussian_blur,
    "motion_blur": _motion_blur,
    "noise": _noise,
    "grayscale": _grayscale,
    "equalize": _equalize,
    "cutout": _cutout,
    "jpeg_artifacts": _jpeg_artifacts,
    "low_light": _low_light,
}
