"""Scenes with known boxes, composed from photos that have a label and no box.

A tile is a part of a photo (its rectangle is the box), a cut-out is an iconic picture freed of its white ground or a
drawing. Everything is drawn from one generator, so a seed gives the same scenes again.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.vision.train import draw
from worker.vision.train.draw import Picture, Rng

CACHE_SIDE: Final = 192


@dataclass(frozen=True, slots=True)
class Photos:
    """Photos in memory: squares of ``CACHE_SIDE`` pixels, their coarse and fine class, and cut-outs by coarse class."""

    pictures: NDArray[np.uint8]
    coarse: NDArray[np.int64]
    fine: NDArray[np.int64]
    labels: list[str]
    cutouts: list[tuple[int, Picture, Picture]]


def load(folder: Path, split: str) -> Photos:
    """Read the photos that ``<split>.txt`` lists (``path, fine, coarse``) and the classes of ``classes.csv``."""
    rows = [line.split(", ") for line in (folder / f"{split}.txt").read_text().splitlines() if line.strip()]
    pictures = np.stack([_square(folder / row[0]) for row in rows])
    table = [line.split(",") for line in (folder / "classes.csv").read_text().splitlines()[1:] if line.strip()]
    labels = [""] * (max(int(row[3]) for row in table) + 1)
    cutouts = []
    for row in table:
        labels[int(row[3])] = row[2]
        iconic = cv2.imread(str(folder / row[4].lstrip("/")))
        if iconic is not None:
            cutouts.append((int(row[3]), *_free(cv2.cvtColor(iconic, cv2.COLOR_BGR2RGB))))
    fine = np.array([int(row[1]) for row in rows])
    return Photos(pictures, np.array([int(row[2]) for row in rows]), fine, labels, cutouts)


def compose(photos: Photos, members: NDArray[np.int64], size: int, rng: Rng) -> tuple[Picture, NDArray[np.float32], NDArray[np.int64]]:
    """Compose one training scene from the photos whose indexes are ``members``.

    :returns: RGB ``[size, size, 3]``, boxes ``[n, 4]`` in pixels, coarse classes ``[n]``.
    """
    kind = rng.random()
    if kind < 0.4:
        return _whole(photos, members, size, rng)
    scene = _ground(photos, members, size, rng)
    boxes: list[list[float]] = []
    labels: list[int] = []
    drawn = kind > 0.86
    for _ in range(int(rng.integers(1, 6))):
        piece, mask, label = _piece(photos, members, size, rng, drawn=drawn)
        place = _place(piece.shape[1], piece.shape[0], size, boxes, rng)
        if place is None:
            continue
        draw.paste(scene, piece, mask, *place)
        boxes.append([place[0], place[1], place[0] + piece.shape[1], place[1] + piece.shape[0]])
        labels.append(label)
    return _photographed(scene, rng), np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64)


def jitter(picture: Picture, rng: Rng) -> Picture:
    """Change light, contrast and tint as cameras do."""
    gain = rng.uniform(0.7, 1.3) * (1 + rng.uniform(-0.08, 0.08, 3))
    shift = rng.uniform(-20, 20)
    lit: Picture = np.clip(picture * gain.astype(np.float32) + np.float32(shift), 0, 255).astype(np.uint8)
    return lit


def crop(picture: Picture, size: int, rng: Rng, least: float = 0.45) -> Picture:
    """Cut out a random part of at least ``least`` of the area, perhaps mirrored, as a square of ``size``."""
    high, wide = picture.shape[:2]
    area = rng.uniform(least, 1.0)
    ratio = np.exp(rng.uniform(-0.25, 0.25))
    h, w = min(high, int(high * np.sqrt(area / ratio))), min(wide, int(wide * np.sqrt(area * ratio)))
    y, x = int(rng.integers(high - h + 1)), int(rng.integers(wide - w + 1))
    part = cv2.resize(picture[y : y + h, x : x + w], (size, size), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(part[:, ::-1]) if rng.random() < 0.5 else part


def _square(path: Path) -> Picture:
    read = cv2.imread(str(path))
    if read is None:
        raise FileNotFoundError(path)
    square: Picture = cv2.resize(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), (CACHE_SIDE, CACHE_SIDE), interpolation=cv2.INTER_AREA)
    return square


def _free(rgb: Picture) -> tuple[Picture, Picture]:
    """Free an iconic picture of its white ground: the white that is connected with the border."""
    white = (rgb.min(2) > 238).astype(np.uint8)
    padded = cv2.copyMakeBorder(white, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(padded, None, (0, 0), 2)
    mask = np.where(padded[1:-1, 1:-1] == 2, 0, 255).astype(np.uint8)
    rows, columns = np.flatnonzero(mask.max(1)), np.flatnonzero(mask.max(0))
    if not len(rows):
        return rgb, np.full(rgb.shape[:2], 255, np.uint8)
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(rgb[part]), cv2.GaussianBlur(np.ascontiguousarray(mask[part]), (3, 3), 0)


def _whole(photos: Photos, members: NDArray[np.int64], size: int, rng: Rng) -> tuple[Picture, NDArray[np.float32], NDArray[np.int64]]:
    member = int(members[rng.integers(len(members))])
    picture = jitter(crop(photos.pictures[member], size, rng), rng)
    box = np.array([[0, 0, size, size]], np.float32)
    return picture, box, photos.coarse[member : member + 1]


def _ground(photos: Photos, members: NDArray[np.int64], size: int, rng: Rng) -> Picture:
    if rng.random() < 0.5:
        return draw.backdrop(size, size, rng)
    blurred = cv2.GaussianBlur(crop(photos.pictures[int(members[rng.integers(len(members))])], size, rng), (0, 0), size / 16)
    dimmed: Picture = (blurred * np.float32(rng.uniform(0.4, 0.9))).astype(np.uint8)
    return dimmed


def _piece(photos: Photos, members: NDArray[np.int64], size: int, rng: Rng, *, drawn: bool) -> tuple[Picture, Picture, int]:
    side = int(size * rng.uniform(0.18, 0.6))
    if drawn:
        names = [*draw.PRODUCE, *draw.CARTONS]
        label = names[rng.integers(len(names))]
        piece, mask = (draw.produce if label in draw.PRODUCE else draw.carton)(label, side, rng)
        return jitter(piece, rng), mask, photos.labels.index(label)
    if photos.cutouts and rng.random() < 0.2:
        coarse, piece, mask = photos.cutouts[rng.integers(len(photos.cutouts))]
        scale = side / max(mask.shape)
        wide, high = max(8, int(mask.shape[1] * scale)), max(8, int(mask.shape[0] * scale))
        return jitter(cv2.resize(piece, (wide, high)), rng), cv2.resize(mask, (wide, high)), coarse
    member = int(members[rng.integers(len(members))])
    piece, mask = _turned(jitter(crop(photos.pictures[member], side, rng), rng), rng)
    return piece, mask, int(photos.coarse[member])


def _turned(tile: Picture, rng: Rng) -> tuple[Picture, Picture]:
    """Turn a tile by up to 12 degrees; the result's frame is the box."""
    high, wide = tile.shape[:2]
    angle = float(rng.uniform(-12, 12)) if rng.random() < 0.5 else 0.0
    matrix = cv2.getRotationMatrix2D((wide / 2, high / 2), angle, 1.0)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    new = (int(wide * cos + high * sin), int(wide * sin + high * cos))
    matrix[:, 2] += (new[0] - wide) / 2, (new[1] - high) / 2
    return cv2.warpAffine(tile, matrix, new), cv2.warpAffine(np.full((high, wide), 255, np.uint8), matrix, new)


def _place(wide: int, high: int, size: int, boxes: list[list[float]], rng: Rng) -> tuple[int, int] | None:
    """Find room for a piece that covers no other by more than 0.3 of the smaller one."""
    if wide > size or high > size:
        return None
    for _ in range(12):
        x, y = int(rng.integers(size - wide + 1)), int(rng.integers(size - high + 1))
        if all(_covered([x, y, x + wide, y + high], other) <= 0.3 for other in boxes):
            return x, y
    return None


def _covered(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return float(width * height / smaller)


def _photographed(scene: Picture, rng: Rng) -> Picture:
    if rng.random() < 0.3:
        scene = cv2.GaussianBlur(scene, (0, 0), float(rng.uniform(0.4, 1.2)))
    return jitter(scene, rng)
