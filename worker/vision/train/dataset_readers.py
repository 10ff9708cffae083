"""Reading labelled data: a folder of photos with one label each, or COCO JSON with boxes.

The folder form is that of the Grocery Store Dataset: ``<split>.txt`` with lines of ``path, fine class, coarse class``, and
``classes.csv`` with the columns fine name, fine class, coarse name, coarse class, and the path of an iconic picture on white
(may be missing). COCO JSON is ``{"images": [{"id", "file_name"}], "categories": [{"id", "name"}],
"annotations": [{"image_id", "category_id", "bbox": [x, y, width, height]}]}`` (cocodataset.org/#format-data).
"""

import csv
import json
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from worker.vision import imaging
from worker.vision.errors import VisionError
from worker.vision.train.datasets import LEARNED_SIDE, UNKNOWN, Photos, Scene, square
from worker.vision.train.drawings import Picture

_MAX_PIXELS: Final = 100_000_000
_LONGEST: Final = 640
"""Pictures with boxes are kept reduced to this."""
_LEAST_SIDE: Final = 4
"""Boxes that are smaller than this in a reduced picture teach nothing."""
_WHITE: Final = 238


class DataUnusable(Exception):
    """Labelled data is missing or damaged; the sentence says where."""


def read(source: Path, split: str, images: Path | None = None, side: int = LEARNED_SIDE) -> Photos:
    """Read labelled data.

    :param source: a folder, or a COCO JSON file.
    :param split: which ``<split>.txt`` of a folder.
    :param images: where the pictures of a COCO file lie; beside it by default.
    :param side: pixels of the squares as which photos are kept.
    :raises DataUnusable: something is missing or damaged, or there is too much of it for the memory.
    """
    try:
        if source.is_file():
            return _coco(json.loads(source.read_text()), images or source.parent, side)
        return _folder(source, split, side)
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise DataUnusable(f"{source} cannot be used: {type(error).__name__}: {error}") from error


def listed(folder: Path, split: str) -> list[tuple[Path, int, int]]:
    """Give path, fine and coarse class of the photos that ``<split>.txt`` lists."""
    rows = [line.split(",") for line in (folder / f"{split}.txt").read_text().splitlines() if line.strip()]
    return [(folder / row[0].strip(), int(row[1]), int(row[2])) for row in rows]


def picture(path: Path) -> Picture:
    """Decode a picture as a worker does."""
    try:
        return imaging.decode(path.read_bytes(), max_pixels=_MAX_PIXELS).rgb
    except VisionError as error:
        raise DataUnusable(f"{path}: {error.detail}") from error


def _folder(folder: Path, split: str, side: int) -> Photos:
    rows = listed(folder, split)
    if not rows:
        raise DataUnusable(f"{folder / split}.txt lists no photo.")
    _afford(len(rows) * side * side * 3)
    with (folder / "classes.csv").open(newline="") as file:
        table = list(csv.reader(file))[1:]
    labels = [""] * (max(int(row[3]) for row in table) + 1)
    shown = {fine for _, fine, _ in rows}
    cutouts = []
    for row in table:
        labels[int(row[3])] = row[2]
        iconic = folder / row[4].lstrip("/")
        if row[4] and iconic.exists():
            kind = int(row[1]) if int(row[1]) in shown else UNKNOWN  # what no photo shows is no class to tell from others
            cutouts.append((int(row[3]), kind, *_free(picture(iconic))))
    pictures = np.stack([square(picture(path), side) for path, _, _ in rows])
    fine, coarse = (np.array([row[at] for row in rows]) for at in (1, 2))
    if coarse.min() < 0 or coarse.max() >= len(labels) or fine.min() < 0:
        raise DataUnusable(f"{folder / split}.txt names a class that classes.csv does not have.")
    return Photos(labels, pictures, coarse, fine, cutouts)


def _coco(said: dict[str, Any], images: Path, side: int) -> Photos:
    categories = sorted(said["categories"], key=lambda one: one["id"])
    numbers = {one["id"]: at for at, one in enumerate(categories)}
    boxes: dict[Any, list[tuple[list[float], int]]] = {one["id"]: [] for one in said["images"]}
    for one in said["annotations"]:
        if not one.get("iscrowd"):
            x, y, wide, high = (float(value) for value in one["bbox"])
            boxes[one["image_id"]].append(([x, y, x + wide, y + high], numbers[one["category_id"]]))
    _afford(len(said["images"]) * _LONGEST * _LONGEST * 2 + sum(len(some) for some in boxes.values()) * side * side * 3)
    scenes: list[Scene] = []
    crops, classes, origin = [], [], []
    for one in said["images"]:
        scene = _scene(picture(images / one["file_name"]), boxes[one["id"]])
        for box, number in zip(scene.boxes.astype(int), scene.classes, strict=True):
            crops.append(square(scene.picture[box[1] : box[3] + 1, box[0] : box[2] + 1], side))
            classes.append(number)
            origin.append(len(scenes))
        scenes.append(scene)
    if not crops:
        raise DataUnusable("There is no box to learn from.")
    each = np.array(classes, np.int64)
    return Photos([str(one["name"]) for one in categories], np.stack(crops), each, each, scenes=scenes, origin=np.array(origin))


def _scene(rgb: Picture, truths: list[tuple[list[float], int]]) -> Scene:
    reduced = imaging.thumbnail(rgb, _LONGEST)
    high, wide = reduced.shape[:2]
    boxes = np.array([box for box, _ in truths], np.float32).reshape(-1, 4) * (wide / rgb.shape[1])
    boxes = boxes.clip(0, [wide, high, wide, high]).astype(np.float32)
    kept = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf) >= _LEAST_SIDE
    return Scene(reduced, boxes[kept], np.array([number for _, number in truths], np.int64)[kept])


def _afford(size: int) -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()  # Linux
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    if 2 * size > 0.8 * free:  # twice, while they are put together and split
        raise DataUnusable(f"The pictures take about {2 * size / 1e9:.0f} GB of memory; {free / 1e9:.0f} GB are free. Use a part of them.")


def _free(rgb: Picture) -> tuple[Picture, Picture]:
    """Free an iconic picture of its white ground: the white that is connected with the border."""
    white = (rgb.min(2) > _WHITE).astype(np.uint8)
    padded = cv2.copyMakeBorder(white, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(padded, None, (0, 0), 2)
    mask = np.where(padded[1:-1, 1:-1] == 2, 0, 255).astype(np.uint8)
    rows, columns = np.flatnonzero(mask.max(1)), np.flatnonzero(mask.max(0))
    if not len(rows):
        return rgb, np.full(rgb.shape[:2], 255, np.uint8)
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(rgb[part]), cv2.GaussianBlur(np.ascontiguousarray(mask[part]), (3, 3), 0)
