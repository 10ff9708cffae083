"""Read labelled data: a folder of photos with one label each, or COCO JSON with boxes.

A folder has the layout of the Grocery Store Dataset: ``<split>.txt`` with lines of ``path, fine class, coarse class``,
and ``classes.csv`` with the columns fine name, fine class, coarse name, coarse class, and the path of an iconic image
on a white background (may be empty). COCO JSON is ``{"images": [{"id", "file_name"}], "categories": [{"id", "name"}],
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
from worker.vision.train.datasets import TRAIN_SIDE, UNKNOWN, Photos, Scene, resize_square
from worker.vision.train.drawings import Image

_MAX_PIXELS: Final = 100_000_000
_MAX_SIDE: Final = 640
"""Images with boxes are reduced until their longest side has this many pixels."""
_MIN_BOX_SIDE: Final = 4
"""Boxes with a shorter side in the reduced image are left out: too small to train on."""
_WHITE_LEVEL: Final = 238


class DataUnusable(Exception):
    """Labelled data is missing or damaged; the message names the file and the problem."""


def read(source: Path, split: str, image_folder: Path | None = None, side: int = TRAIN_SIDE) -> Photos:
    """Read labelled data.

    :param source: a folder, or a COCO JSON file.
    :param split: for a folder, which ``<split>.txt`` to read.
    :param image_folder: the folder of a COCO file's images; default: the folder of the COCO file.
    :param side: photos are returned as squares of this many pixels.
    :raises DataUnusable: when data is missing or damaged, or does not fit into memory.
    """
    try:
        if source.is_file():
            return _read_coco(json.loads(source.read_text()), image_folder or source.parent, side)
        return _read_folder(source, split, side)
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise DataUnusable(f"{source} cannot be used: {type(error).__name__}: {error}") from error


def list_photos(folder: Path, split: str) -> list[tuple[Path, int, int]]:
    """Return path, fine class and coarse class of the photos that ``<split>.txt`` lists."""
    rows = [line.split(",") for line in (folder / f"{split}.txt").read_text().splitlines() if line.strip()]
    return [(folder / row[0].strip(), int(row[1]), int(row[2])) for row in rows]


def read_image(path: Path) -> Image:
    """Decode an image with the worker's decoder.

    :raises DataUnusable: when it cannot be decoded.
    """
    try:
        return imaging.decode(path.read_bytes(), max_pixels=_MAX_PIXELS).rgb
    except VisionError as error:
        raise DataUnusable(f"{path}: {error.detail}") from error


def _read_folder(folder: Path, split: str, side: int) -> Photos:
    rows = list_photos(folder, split)
    if not rows:
        raise DataUnusable(f"{folder / split}.txt lists no photo.")
    _check_memory(len(rows) * side * side * 3)
    with (folder / "classes.csv").open(newline="") as file:
        table = list(csv.reader(file))[1:]
    labels = [""] * (max(int(row[3]) for row in table) + 1)
    fine_with_photos = {fine for _, fine, _ in rows}
    cutouts = []
    for row in table:
        labels[int(row[3])] = row[2]
        iconic = folder / row[4].lstrip("/")
        if row[4] and iconic.exists():
            # The fine head is not trained on a class that no photo shows.
            fine_class = int(row[1]) if int(row[1]) in fine_with_photos else UNKNOWN
            cutouts.append((int(row[3]), fine_class, *_cut_out(read_image(iconic))))
    images = np.stack([resize_square(read_image(path), side) for path, _, _ in rows])
    fine, coarse = (np.array([row[column] for row in rows]) for column in (1, 2))
    if coarse.min() < 0 or coarse.max() >= len(labels) or fine.min() < 0:
        raise DataUnusable(f"{folder / split}.txt names a class that classes.csv does not have.")
    return Photos(labels, images, coarse, fine, cutouts)


def _read_coco(coco: dict[str, Any], image_folder: Path, side: int) -> Photos:
    categories = sorted(coco["categories"], key=lambda category: category["id"])
    class_of_category = {category["id"]: number for number, category in enumerate(categories)}
    boxes: dict[Any, list[tuple[list[float], int]]] = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        if not annotation.get("iscrowd"):
            x, y, width, height = (float(value) for value in annotation["bbox"])
            label = class_of_category[annotation["category_id"]]
            boxes[annotation["image_id"]].append(([x, y, x + width, y + height], label))
    box_count = sum(len(of_image) for of_image in boxes.values())
    _check_memory(len(coco["images"]) * _MAX_SIDE * _MAX_SIDE * 2 + box_count * side * side * 3)
    scenes: list[Scene] = []
    crops, classes, scene_index = [], [], []
    for image in coco["images"]:
        scene = _create_scene(read_image(image_folder / image["file_name"]), boxes[image["id"]])
        for box, label in zip(scene.boxes.astype(int), scene.classes, strict=True):
            crops.append(resize_square(scene.image[box[1] : box[3] + 1, box[0] : box[2] + 1], side))
            classes.append(label)
            scene_index.append(len(scenes))
        scenes.append(scene)
    if not crops:
        raise DataUnusable("The data has no box to learn from.")
    class_array = np.array(classes, np.int64)
    labels = [str(category["name"]) for category in categories]
    return Photos(labels, np.stack(crops), class_array, class_array, scenes=scenes, scene_index=np.array(scene_index))


def _create_scene(rgb: Image, truths: list[tuple[list[float], int]]) -> Scene:
    reduced = imaging.thumbnail(rgb, _MAX_SIDE)
    height, width = reduced.shape[:2]
    boxes = np.array([box for box, _ in truths], np.float32).reshape(-1, 4) * (width / rgb.shape[1])
    boxes = boxes.clip(0, [width, height, width, height]).astype(np.float32)
    kept = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf) >= _MIN_BOX_SIDE
    return Scene(reduced, boxes[kept], np.array([label for _, label in truths], np.int64)[kept])


def _check_memory(size: int) -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()  # Linux
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    if 2 * size > 0.8 * free:  # the data exists twice while it is stacked and split
        raise DataUnusable(
            f"The images need about {2 * size / 1e9:.0f} GB of memory; {free / 1e9:.0f} GB are free. Use fewer images."
        )


def _cut_out(rgb: Image) -> tuple[Image, Image]:
    """Remove the white background of an iconic image: the white pixels that are connected with the border.

    :returns: RGB ``[H, W, 3]`` and a mask ``[H, W]`` (0..255), both cropped to the object.
    """
    white = (rgb.min(2) > _WHITE_LEVEL).astype(np.uint8)
    padded = cv2.copyMakeBorder(white, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(padded, None, (0, 0), 2)
    mask = np.where(padded[1:-1, 1:-1] == 2, 0, 255).astype(np.uint8)
    rows, columns = np.flatnonzero(mask.max(1)), np.flatnonzero(mask.max(0))
    if not len(rows):
        return rgb, np.full(rgb.shape[:2], 255, np.uint8)
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(rgb[part]), cv2.GaussianBlur(np.ascontiguousarray(mask[part]), (3, 3), 0)
