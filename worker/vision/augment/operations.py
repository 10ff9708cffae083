"""Sample the parameters of augmentations, and transform boxes with the parameters. This module computes no pixels.

All coordinates are continuous: the centre of the first pixel is at (0.5, 0.5). The random seed is derived from the
image id, the operation's name, and ``RECIPE_VERSION``. So the parameters for an image are the same every time,
regardless of the backend that computes the pixels.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

RECIPE_VERSION: Final = 2
"""A part of the seed. Increase this number whenever a change to this module changes parameters or noise."""
MIN_VISIBLE_FRACTION: Final = 0.25
"""A box is dropped if less than this fraction of its area is still visible, that is, inside the frame and outside all
holes."""
_MIN_HOMOGENEOUS_W: Final = 1e-6
"""A point whose third homogeneous coordinate is not larger than this lies on the horizon of the projection or behind
the horizon."""
_IDENTITY: Final = np.eye(3)

Rng = np.random.Generator
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Transform:
    """One operation with sampled parameters, for an image of ``height`` x ``width`` pixels.

    ``params`` describes the operation, with lengths in pixels, angles in degrees, and intensities on a scale from 0 to
    255; it is part of the stored result. ``matrix`` ``[3, 3]``, float64, maps points of the input image to points of
    the output image in homogeneous coordinates. Noise is not in ``params`` because it has too many values. Instead, the
    backend that computes the pixels generates the noise from ``seed``.
    """

    name: str
    height: int
    width: int
    params: dict[str, Any]
    matrix: Matrix
    seed: int

    def transform_boxes(self, boxes: list[list[float]]) -> list[tuple[int, list[float]]]:
        """Transform boxes, and drop each box of which less than ``MIN_VISIBLE_FRACTION`` is still visible.

        :param boxes: x1, y1, x2, y2 in pixels.
        :returns: for each remaining box, its index in ``boxes`` and its new coordinates.
        """
        if (self.matrix == _IDENTITY).all():
            holes = self.params.get("holes", [])
            return [(index, list(box)) for index, box in enumerate(boxes) if visible_fraction(box, holes) >= MIN_VISIBLE_FRACTION]
        transformed = [(index, transform_box(box, self.matrix, self.width, self.height)) for index, box in enumerate(boxes)]
        return [(index, box) for index, box in transformed if box is not None]


def sample_transform(name: str, height: int, width: int, *, image_id: str) -> Transform:
    """Sample the parameters of an operation, with a random seed that is derived from the image id.

    :param name: a key of ``OPERATIONS``.
    :param height: height of the image in pixels.
    :param width: width of the image in pixels.
    :raises KeyError: ``name`` is unknown.
    """
    seed = int.from_bytes(hashlib.sha256(f"{image_id}/{name}/{RECIPE_VERSION}".encode()).digest()[:8], "big")
    params, matrix = OPERATIONS[name](height, width, np.random.default_rng(seed))
    return Transform(name, height, width, params, matrix, seed)


def transform_box(box: list[float], matrix: Matrix, width: int, height: int) -> list[float] | None:
    """Transform a box with the homography that transforms the image.

    The corners of the box are transformed, and their axis-aligned bounding box is clipped to the output image.

    :param box: x1, y1, x2, y2 in pixels.
    :param matrix: the homography ``[3, 3]``.
    :param width: width of the output image in pixels.
    :param height: height of the output image in pixels.
    :returns: the clipped bounding box x1, y1, x2, y2, rounded to a tenth of a pixel. None if less than
        ``MIN_VISIBLE_FRACTION`` of the bounding box is inside the output image, or if the homography maps a corner to
        the horizon or behind the horizon.
    """
    x1, y1, x2, y2 = box
    corners = np.array([[x1, y1, 1], [x2, y1, 1], [x2, y2, 1], [x1, y2, 1]]).T
    projected = matrix @ corners
    if projected[2].min() <= _MIN_HOMOGENEOUS_W:
        return None
    xs, ys = projected[0] / projected[2], projected[1] / projected[2]
    left, top, right, bottom = float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())
    clipped = [max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom)]
    area = max(1e-9, (right - left) * (bottom - top))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return None
    if (clipped[2] - clipped[0]) * (clipped[3] - clipped[1]) / area < MIN_VISIBLE_FRACTION:
        return None
    return [round(value, 1) for value in clipped]


def visible_fraction(box: list[float], holes: list[list[int]]) -> float:
    """Return the fraction (0 to 1) of a box's area that is not covered by any hole. Holes can overlap.

    :param box: x1, y1, x2, y2 in pixels.
    :param holes: rectangles that cover parts of the image, each as x1, y1, x2, y2 in pixels.
    """
    edges = np.array([box, *holes], np.float64)
    xs, ys = (np.unique(edges[:, [axis, axis + 2]].clip(box[axis], box[axis + 2])) for axis in (0, 1))
    x, y = (xs[1:] + xs[:-1]) / 2, (ys[1:] + ys[:-1]) / 2
    visible = np.ones((len(y), len(x)), bool)
    for x1, y1, x2, y2 in holes:
        visible &= ~(((y1 < y) & (y < y2))[:, None] & ((x1 < x) & (x < x2)))
    areas = np.diff(ys)[:, None] * np.diff(xs)
    return float(areas[visible].sum() / max(1e-9, areas.sum())) if holes else 1.0


_Sampled = tuple[dict[str, Any], Matrix]


def _horizontal_flip(_height: int, width: int, _rng: Rng) -> _Sampled:
    return {}, np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]])


def _rotate(height: int, width: int, rng: Rng) -> _Sampled:
    degrees = round(float(rng.uniform(-15, 15)), 2)
    return {"degrees": degrees}, np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0), [0, 0, 1]])


def _random_crop(height: int, width: int, rng: Rng) -> _Sampled:
    scale = round(float(rng.uniform(0.6, 0.9)), 3)
    h, w = max(1, int(height * scale)), max(1, int(width * scale))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    sx, sy = width / w, height / h
    return {"x": x, "y": y, "width": w, "height": h}, np.array([[sx, 0, -x * sx], [0, sy, -y * sy], [0, 0, 1.0]])


def _perspective(height: int, width: int, rng: Rng) -> _Sampled:
    shifts = rng.uniform(0, 0.12, (4, 2)).round(3)
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    targets = (corners + shifts * signs * (width, height)).astype(np.float32)
    return {"shifts": shifts.tolist()}, cv2.getPerspectiveTransform(corners, targets)


def _shear(height: int, _width: int, rng: Rng) -> _Sampled:
    factor = round(float(rng.uniform(-0.2, 0.2)), 3)
    return {"factor": factor}, np.array([[1, factor, -factor * height / 2], [0, 1, 0], [0, 0, 1.0]])


def _color_jitter(_height: int, _width: int, rng: Rng) -> _Sampled:
    brightness, contrast, saturation = (round(float(rng.uniform(0.7, 1.3)), 3) for _ in range(3))
    hue = round(float(rng.uniform(-0.05, 0.05)), 3)
    return {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}, _IDENTITY


def _gaussian_blur(_height: int, _width: int, rng: Rng) -> _Sampled:
    return {"sigma": round(float(rng.uniform(0.8, 2.5)), 2)}, _IDENTITY


def _motion_blur(_height: int, _width: int, rng: Rng) -> _Sampled:
    return {"length": int(rng.integers(7, 19)) | 1, "degrees": round(float(rng.uniform(0, 180)), 1)}, _IDENTITY


def _noise(_height: int, _width: int, rng: Rng) -> _Sampled:
    return {"sigma": round(float(rng.uniform(5, 20)), 2)}, _IDENTITY


def _no_parameters(_height: int, _width: int, _rng: Rng) -> _Sampled:
    return {}, _IDENTITY


def _cutout(height: int, width: int, rng: Rng) -> _Sampled:
    holes = []
    for _ in range(int(rng.integers(1, 4))):
        h, w = (max(1, int(side * rng.uniform(0.08, 0.2))) for side in (height, width))
        y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        holes.append([x, y, x + w, y + h])
    return {"holes": holes}, _IDENTITY


def _jpeg_artifacts(_height: int, _width: int, rng: Rng) -> _Sampled:
    return {"quality": int(rng.integers(8, 30))}, _IDENTITY


def _low_light(_height: int, _width: int, rng: Rng) -> _Sampled:
    return {"gain": round(float(rng.uniform(0.25, 0.5)), 3), "sigma": round(float(rng.uniform(3, 8)), 2)}, _IDENTITY


OPERATIONS: Final[dict[str, Callable[[int, int, Rng], _Sampled]]] = {
    "horizontal_flip": _horizontal_flip,
    "rotate": _rotate,
    "random_crop": _random_crop,
    "perspective": _perspective,
    "shear": _shear,
    "color_jitter": _color_jitter,
    "gaussian_blur": _gaussian_blur,
    "motion_blur": _motion_blur,
    "noise": _noise,
    "grayscale": _no_parameters,
    "equalize": _no_parameters,
    "cutout": _cutout,
    "jpeg_artifacts": _jpeg_artifacts,
    "low_light": _low_light,
}
"""For each operation, the function that samples its parameters and its matrix. The arguments of the function are the
height and the width of the image, and a random generator."""
