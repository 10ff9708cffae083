"""What an augmentation does, before any pixel is made: parameters from a seed, where each point goes, and the boxes with it.

Coordinates are continuous, as a box's are: the centre of the first pixel lies at (0.5, 0.5). The seed comes from the image's
id, the operation's name and ``RECIPE``, so the same input gives the same again, whoever makes the pixels of it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

RECIPE: Final = 2
KEPT_SHARE: Final = 0.25
"""A box of which less than this share remains, in the frame and beside holes, is dropped."""
_HORIZON: Final = 1e-6
_STILL: Final = np.eye(3)

Rng = np.random.Generator
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plan:
    """One operation on a picture of one size.

    ``params`` say what is done, in pixels, degrees and steps of 0 to 255, and are reported; ``matrix`` ``[3, 3]`` says where a point
    goes. Grain has too many numbers to be one of the parameters: it is drawn from ``seed`` by who makes the pixels.
    """

    name: str
    height: int
    width: int
    params: dict[str, Any]
    matrix: Matrix
    seed: int

    def moved(self, boxes: list[list[float]]) -> list[tuple[int, list[float]]]:
        """Move boxes along; those that remain, each with its index in ``boxes`` (x1, y1, x2, y2 in pixels)."""
        if (self.matrix == _STILL).all():
            holes = self.params.get("holes", [])
            return [(index, list(box)) for index, box in enumerate(boxes) if shown(box, holes) >= KEPT_SHARE]
        moved = [(index, move_box(box, self.matrix, self.width, self.height)) for index, box in enumerate(boxes)]
        return [(index, box) for index, box in moved if box is not None]


def draw(name: str, height: int, width: int, *, image_id: str) -> Plan:
    """Draw the parameters of an operation.

    :param name: one of ``OPERATIONS``.
    :param height: of the picture, in pixels, as is ``width``.
    """
    seed = int.from_bytes(hashlib.sha256(f"{image_id}/{name}/{RECIPE}".encode()).digest()[:8], "big")
    params, matrix = OPERATIONS[name](height, width, np.random.default_rng(seed))
    return Plan(name, height, width, params, matrix, seed)


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


def shown(box: list[float], holes: list[list[int]]) -> float:
    """Give the share of a box that no hole covers, though holes may overlap: all are x1, y1, x2, y2."""
    edges = np.array([box, *holes], np.float64)
    xs, ys = (np.unique(edges[:, [at, at + 2]].clip(box[at], box[at + 2])) for at in (0, 1))
    x, y = (xs[1:] + xs[:-1]) / 2, (ys[1:] + ys[:-1]) / 2
    free = np.ones((len(y), len(x)), bool)
    for x1, y1, x2, y2 in holes:
        free &= ~(((y1 < y) & (y < y2))[:, None] & ((x1 < x) & (x < x2)))
    areas = np.diff(ys)[:, None] * np.diff(xs)
    return float(areas[free].sum() / max(1e-9, areas.sum())) if holes else 1.0


_Drawn = tuple[dict[str, Any], Matrix]


def _horizontal_flip(_height: int, width: int, _rng: Rng) -> _Drawn:
    return {}, np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]])


def _rotate(height: int, width: int, rng: Rng) -> _Drawn:
    degrees = round(float(rng.uniform(-15, 15)), 2)
    return {"degrees": degrees}, np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0), [0, 0, 1]])


def _random_crop(height: int, width: int, rng: Rng) -> _Drawn:
    share = round(float(rng.uniform(0.6, 0.9)), 3)
    h, w = max(1, int(height * share)), max(1, int(width * share))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    sx, sy = width / w, height / h
    return {"x": x, "y": y, "width": w, "height": h}, np.array([[sx, 0, -x * sx], [0, sy, -y * sy], [0, 0, 1.0]])


def _perspective(height: int, width: int, rng: Rng) -> _Drawn:
    shifts = rng.uniform(0, 0.12, (4, 2)).round(3)
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = (corners + shifts * signs * (width, height)).astype(np.float32)
    return {"shifts": shifts.tolist()}, cv2.getPerspectiveTransform(corners, moved)


def _shear(height: int, _width: int, rng: Rng) -> _Drawn:
    factor = round(float(rng.uniform(-0.2, 0.2)), 3)
    return {"factor": factor}, np.array([[1, factor, -factor * height / 2], [0, 1, 0], [0, 0, 1.0]])


def _color_jitter(_height: int, _width: int, rng: Rng) -> _Drawn:
    brightness, contrast, saturation = (round(float(rng.uniform(0.7, 1.3)), 3) for _ in range(3))
    hue = round(float(rng.uniform(-0.05, 0.05)), 3)
    return {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}, _STILL


def _gaussian_blur(_height: int, _width: int, rng: Rng) -> _Drawn:
    return {"sigma": round(float(rng.uniform(0.8, 2.5)), 2)}, _STILL


def _motion_blur(_height: int, _width: int, rng: Rng) -> _Drawn:
    return {"length": int(rng.integers(7, 19)) | 1, "degrees": round(float(rng.uniform(0, 180)), 1)}, _STILL


def _noise(_height: int, _width: int, rng: Rng) -> _Drawn:
    return {"sigma": round(float(rng.uniform(5, 20)), 2)}, _STILL


def _nothing(_height: int, _width: int, _rng: Rng) -> _Drawn:
    return {}, _STILL


def _cutout(height: int, width: int, rng: Rng) -> _Drawn:
    holes = []
    for _ in range(int(rng.integers(1, 4))):
        h, w = (max(1, int(side * rng.uniform(0.08, 0.2))) for side in (height, width))
        y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        holes.append([x, y, x + w, y + h])
    return {"holes": holes}, _STILL


def _jpeg_artifacts(_height: int, _width: int, rng: Rng) -> _Drawn:
    return {"quality": int(rng.integers(8, 30))}, _STILL


def _low_light(_height: int, _width: int, rng: Rng) -> _Drawn:
    return {"gain": round(float(rng.uniform(0.25, 0.5)), 3), "sigma": round(float(rng.uniform(3, 8)), 2)}, _STILL


OPERATIONS: Final[dict[str, Callable[[int, int, Rng], _Drawn]]] = {
    "horizontal_flip": _horizontal_flip,
    "rotate": _rotate,
    "random_crop": _random_crop,
    "perspective": _perspective,
    "shear": _shear,
    "color_jitter": _color_jitter,
    "gaussian_blur": _gaussian_blur,
    "motion_blur": _motion_blur,
    "noise": _noise,
    "grayscale": _nothing,
    "equalize": _nothing,
    "cutout": _cutout,
    "jpeg_artifacts": _jpeg_artifacts,
    "low_light": _low_light,
}
