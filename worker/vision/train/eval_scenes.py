"""Compose the scenes on which a detector is evaluated, from photos on which it was not trained.

The code in this file was committed before the training whose result it evaluates, so it was not adapted to the result.
The module ``scenes``, which composes the scenes for training, uses ``rotate`` and ``find_place`` from this file, but
this file must not use ``scenes``. Both modules use ``drawings`` to draw backgrounds and to paste pieces. If this file
or these functions of ``drawings`` change, new evaluation results are not comparable with earlier ones.
"""

import cv2
import numpy as np

from worker.vision.train import drawings
from worker.vision.train.datasets import Photos, Scene
from worker.vision.train.drawings import Image, Rng

SIDE = 256
"""Width and height in pixels, both of a scene and of the photos from which it is composed."""


def compose(photos: Photos, seed: int) -> Scene:
    """Compose one scene.

    Three to six tiles are pasted on a background; a tile for which no place is found is left out. The side of a tile is
    15 to 60% of the side of the scene, and two tiles overlap by at most 0.3 of the area of the smaller tile. Rotation,
    lighting, and blur are random.
    """
    rng = np.random.default_rng(seed)
    image = _background(photos, rng)
    boxes: list[list[float]] = []
    classes: list[int] = []
    for _ in range(int(rng.integers(3, 7))):
        index = int(rng.integers(len(photos.images)))
        side = int(SIDE * rng.uniform(0.15, 0.6))
        tile = cv2.resize(photos.images[index], (side, side), interpolation=cv2.INTER_AREA)
        piece, mask = rotate(tile, float(rng.uniform(-12, 12)) if rng.random() < 0.5 else 0.0)
        corner = find_place(piece.shape[1], piece.shape[0], SIDE, boxes, rng)
        if corner is None:
            continue
        drawings.paste(image, piece, mask, *corner)
        boxes.append([corner[0], corner[1], corner[0] + piece.shape[1], corner[1] + piece.shape[0]])
        classes.append(int(photos.coarse[index]))
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.2)))
    return Scene(_relight(image, rng), np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64))


def rotate(tile: Image, degrees: float) -> tuple[Image, Image]:
    """Rotate a tile, and return the rotated tile and its mask, both with the size of the rotated bounding box."""
    height, width = tile.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = (int(width * cos + height * sin), int(width * sin + height * cos))
    matrix[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    return cv2.warpAffine(tile, matrix, size), cv2.warpAffine(np.full((height, width), 255, np.uint8), matrix, size)


def find_place(width: int, height: int, size: int, boxes: list[list[float]], rng: Rng) -> tuple[int, int] | None:
    """Find a random place in a scene for a piece of ``width`` x ``height`` pixels.

    The piece can overlap each of the boxes, but by at most 0.3 of the area of the smaller one of the two.

    :param size: side of the square scene in pixels.
    :param boxes: the boxes of the pieces that are already in the scene.
    :returns: x and y of the piece's top left corner; None if no place was found.
    """
    if width > size or height > size:
        return None
    for _ in range(12):
        x, y = int(rng.integers(size - width + 1)), int(rng.integers(size - height + 1))
        if all(_overlap_share([x, y, x + width, y + height], other) <= 0.3 for other in boxes):
            return x, y
    return None


def _background(photos: Photos, rng: Rng) -> Image:
    if rng.random() < 0.5:
        return drawings.draw_background(SIDE, SIDE, rng)
    photo = photos.images[int(rng.integers(len(photos.images)))]
    blurred = cv2.GaussianBlur(cv2.resize(photo, (SIDE, SIDE)), (0, 0), SIDE / 16)
    dimmed: Image = (blurred * np.float32(rng.uniform(0.4, 0.9))).astype(np.uint8)
    return dimmed


def _relight(image: Image, rng: Rng) -> Image:
    gain = rng.uniform(0.7, 1.3) * (1 + rng.uniform(-0.08, 0.08, 3))
    lit: Image = np.clip(image * gain.astype(np.float32) + np.float32(rng.uniform(-20, 20)), 0, 255).astype(np.uint8)
    return lit


def _overlap_share(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return float(width * height / smaller)
