"""The scenes that a detector is judged by, composed from photos that it was not trained on.

This file was committed before the training whose result it judges. The training's own scenes borrow ``turned`` and ``place`` from
here, never the other way round; both draw backdrops and paste by ``draw``. A change to any of these changes what every figure means.
"""

import cv2
import numpy as np

from worker.vision.train import drawings
from worker.vision.train.datasets import Photos, Scene
from worker.vision.train.drawings import Picture, Rng

SIDE = 256
"""Pixels of a scene each way, and of the photos from which it is composed."""


def scene(photos: Photos, seed: int) -> Scene:
    """Compose one scene: 3 to 6 tiles of 15-60% of the frame, overlap up to 0.3, rotation, light, blur."""
    rng = np.random.default_rng(seed)
    picture = _ground(photos, rng)
    boxes: list[list[float]] = []
    classes: list[int] = []
    for _ in range(int(rng.integers(3, 7))):
        member = int(rng.integers(len(photos.pictures)))
        side = int(SIDE * rng.uniform(0.15, 0.6))
        tile = cv2.resize(photos.pictures[member], (side, side), interpolation=cv2.INTER_AREA)
        piece, mask = turned(tile, float(rng.uniform(-12, 12)) if rng.random() < 0.5 else 0.0)
        at = place(piece.shape[1], piece.shape[0], SIDE, boxes, rng)
        if at is None:
            continue
        drawings.paste(picture, piece, mask, *at)
        boxes.append([at[0], at[1], at[0] + piece.shape[1], at[1] + piece.shape[0]])
        classes.append(int(photos.coarse[member]))
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 1.2)))
    return Scene(_lit(picture, rng), np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64))


def turned(tile: Picture, degrees: float) -> tuple[Picture, Picture]:
    """Turn a tile; give it with its mask, both as large as its upright frame."""
    high, wide = tile.shape[:2]
    matrix = cv2.getRotationMatrix2D((wide / 2, high / 2), degrees, 1.0)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    new = (int(wide * cos + high * sin), int(wide * sin + high * cos))
    matrix[:, 2] += (new[0] - wide) / 2, (new[1] - high) / 2
    return cv2.warpAffine(tile, matrix, new), cv2.warpAffine(np.full((high, wide), 255, np.uint8), matrix, new)


def place(wide: int, high: int, size: int, boxes: list[list[float]], rng: Rng) -> tuple[int, int] | None:
    """Find room for a piece that covers no other by more than 0.3 of the smaller one."""
    if wide > size or high > size:
        return None
    for _ in range(12):
        x, y = int(rng.integers(size - wide + 1)), int(rng.integers(size - high + 1))
        if all(_covered([x, y, x + wide, y + high], other) <= 0.3 for other in boxes):
            return x, y
    return None


def _ground(photos: Photos, rng: Rng) -> Picture:
    if rng.random() < 0.5:
        return drawings.backdrop(SIDE, SIDE, rng)
    photo = photos.pictures[int(rng.integers(len(photos.pictures)))]
    blurred = cv2.GaussianBlur(cv2.resize(photo, (SIDE, SIDE)), (0, 0), SIDE / 16)
    dimmed: Picture = (blurred * np.float32(rng.uniform(0.4, 0.9))).astype(np.uint8)
    return dimmed


def _lit(picture: Picture, rng: Rng) -> Picture:
    gain = rng.uniform(0.7, 1.3) * (1 + rng.uniform(-0.08, 0.08, 3))
    lit: Picture = np.clip(picture * gain.astype(np.float32) + np.float32(rng.uniform(-20, 20)), 0, 255).astype(np.uint8)
    return lit


def _covered(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return float(width * height / smaller)
