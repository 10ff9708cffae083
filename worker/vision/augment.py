"""Augmentations: pixels by OpenCV, boxes by one geometry for all, parameters from a seed.

The seed comes from the image's id, the operation's name and ``RECIPE``, so the same input gives the same bytes again.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.vision.imaging import Rgb, encode_jpeg

RECIPE: Final = 1
KEPT_SHARE: Final = 0.25
"""A box of which less than this share remains in the frame is dropped."""

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
    """Move a box by a 3x3 matrix: the upright frame of its corners, clipped; None when too little remains."""
    x1, y1, x2, y2 = box
    corners = np.array([[x1, y1, 1], [x2, y1, 1], [x2, y2, 1], [x1, y2, 1]]).T
    moved = matrix @ corners
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


def _warp(rgb: Rgb, matrix: Matrix, params: dict[str, Any]) -> _Made:
    size = (rgb.shape[1], rgb.shape[0])
    return cv2.warpPerspective(rgb, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), params, matrix


def _horizontal_flip(rgb: Rgb, _rng: Rng) -> _Made:
    matrix = np.array([[-1.0, 0, rgb.shape[1]], [0, 1, 0], [0, 0, 1]])
    return np.ascontiguousarray(rgb[:, ::-1]), {}, matrix


def _rotate(rgb: Rgb, rng: Rng) -> _Made:
    degrees = round(float(rng.uniform(-15, 15)), 2)
    height, width = rgb.shape[:2]
    matrix = np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0), [0, 0, 1]])
    return cv2.warpAffine(rgb, matrix[:2], (width, height), flags=cv2.INTER_LINEAR), {"degrees": degrees}, matrix


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
    shifts = rng.uniform(0, 0.12, (4, 2))
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = (corners + shifts * signs * (width, height)).astype(np.float32)
    return _warp(rgb, cv2.getPerspectiveTransform(corners, moved), {"shifts": shifts.round(3).tolist()})


def _shear(rgb: Rgb, rng: Rng) -> _Made:
    factor = round(float(rng.uniform(-0.2, 0.2)), 3)
    return _warp(rgb, np.array([[1, factor, -factor * rgb.shape[0] / 2], [0, 1, 0], [0, 0, 1.0]]), {"factor": factor})


def _color_jitter(rgb: Rgb, rng: Rng) -> _Made:
    brightness, contrast, saturation = (round(float(rng.uniform(0.7, 1.3)), 3) for _ in range(3))
    hue = round(float(rng.uniform(-0.05, 0.05)), 3)
    steps = np.arange(256, dtype=np.float32)
    mean = float(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).mean()) * brightness
    table = np.clip((steps * brightness - mean) * contrast + mean, 0, 255).astype(np.uint8)
    hsv = cv2.cvtColor(cv2.LUT(rgb, table), cv2.COLOR_RGB2HSV)
    identity = np.arange(256, dtype=np.uint8)
    hues = ((np.arange(256) + round(hue * 180)) % 180).astype(np.uint8)
    saturations = np.clip(steps * saturation, 0, 255).astype(np.uint8)
    made = cv2.cvtColor(cv2.LUT(hsv, np.stack([hues, saturations, identity], 1)[:, None]), cv2.COLOR_HSV2RGB)
    return made, {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}, None


def _gaussian_blur(rgb: Rgb, rng: Rng) -> _Made:
    sigma = round(float(rng.uniform(0.8, 2.5)), 2)
    return cv2.GaussianBlur(rgb, (0, 0), sigma), {"sigma": sigma}, None


def _motion_blur(rgb: Rgb, rng: Rng) -> _Made:
    length, degrees = int(rng.integers(7, 19)) | 1, round(float(rng.uniform(0, 180)), 1)
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    kernel = cv2.warpAffine(kernel, cv2.getRotationMatrix2D((length / 2 - 0.5, length / 2 - 0.5), degrees, 1), (length, length))
    return cv2.filter2D(rgb, -1, kernel / kernel.sum()), {"length": length, "degrees": degrees}, None


def _noise(rgb: Rgb, rng: Rng) -> _Made:
    sigma = round(float(rng.uniform(5, 20)), 2)
    grain = rng.standard_normal(rgb.shape, np.float32) * sigma
    return np.clip(rgb + grain, 0, 255).astype(np.uint8), {"sigma": sigma}, None


def _grayscale(rgb: Rgb, _rng: Rng) -> _Made:
    return cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), {}, None


def _equalize(rgb: Rgb, _rng: Rng) -> _Made:
    return np.ascontiguousarray(np.dstack([cv2.equalizeHist(np.ascontiguousarray(rgb[..., channel])) for channel in range(3)])), {}, None


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
    grain = rng.standard_normal(rgb.shape, np.float32) * sigma
    return np.clip(rgb * np.float32(gain) + grain, 0, 255).astype(np.uint8), {"gain": gain, "sigma": sigma}, None


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
