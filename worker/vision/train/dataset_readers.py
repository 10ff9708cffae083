"""Read labelled data: a folder of photos with one label each, or a COCO JSON file with boxes.

A folder has the layout of the Grocery Store Dataset. It contains ``<split>.txt``, with a line ``path, fine class,
coarse class`` for each photo, and ``classes.csv``, with the columns fine name, fine class, coarse name, coarse class,
and path of an iconic image on a white background (can be empty). A COCO JSON file contains ``{"images": [{"id",
"file_name"}], "categories": [{"id", "name"}], "annotations": [{"image_id", "category_id", "bbox": [x, y, width,
height]}]}`` (cocodataset.org/#format-data).
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
"""Images with boxes are reduced if their longest side has more pixels than this."""
_MIN_BOX_SIDE: Final = 4
"""A box that has a side with fewer pixels than this in the reduced image is left out, because it is too small for
training."""
_WHITE_LEVEL: Final = 238


class DataUnusable(Exception):
    """Raised if labelled data cannot be used. The message says why."""


def read(source: Path, split: str, image_folder: Path | None = None, side: int = TRAIN_SIDE) -> Photos:
    """Read labelled data.

    :param source: a folder or a COCO JSON file.
    :param split: for a folder, the name of the split: ``<split>.txt`` is read.
    :param image_folder: the folder with the images of a COCO file; by default, the folder of the COCO file.
    :param side: photos are resized to squares with this side in pixels.
    :raises DataUnusable: the data is missing or damaged, or does not fit into memory.
    """
    try:
        if source.is_file():
            return _read_coco(json.loads(source.read_text()), image_folder or source.parent, side)
        return _read_folder(source, split, side)
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise DataUnusable(f"{source} cannot be used: {type(error).__name__}: {error}. See docs/models.md for the format.") from error


def list_photos(folder: Path, split: str) -> list[tuple[Path, int, int]]:
    """Return the path, the fine class and the coarse class of each photo that ``<split>.txt`` lists."""
    rows = [line.split(",") for line in (folder / f"{split}.txt").read_text().splitlines() if line.strip()]
    return [(folder / row[0].strip(), int(row[1]), int(row[2])) for row in rows]


def read_image(path: Path) -> Image:
    """Read and decode an image with the decoder that the worker uses.

    :raises DataUnusable: the image cannot be decoded.
    """
    try:
        return imaging.decode(path.read_bytes(), max_pixels=_MAX_PIXELS).rgb
    except VisionError as error:
        raise DataUnusable(f"{path}: {error.detail}") from error


def _read_folder(folder: Path, split: str, side: int) -> Photos:
    rows = list_photos(folder, split)
    if not rows:
        raise DataUnusable(f"{folder / split}.txt lists no photo. Add at least one line.")
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
            # The fine head is only trained on classes for which there are photos.
            fine_class = int(row[1]) if int(row[1]) in fine_with_photos else UNKNOWN
            cutouts.append((int(row[3]), fine_class, *_cut_out(read_image(iconic))))
    images = np.stack([resize_square(read_image(path), side) for path, _, _ in rows])
    fine, coarse = (np.array([row[column] for row in rows]) for column in (1, 2))
    if coarse.min() < 0 or coarse.max() >= len(labels) or fine.min() < 0:
        raise DataUnusable(f"{folder / split}.txt contains a class that classes.csv does not contain. Correct one of the files.")
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
        raise DataUnusable("The COCO JSON file has no box to learn from. Use a file with boxes.")
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
    lines = Path("/proc/meminfo").read_text().splitlines()  # this file exists only on Linux
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    if 2 * size > 0.8 * free:  # two copies of the data exist while it is stacked and split
        raise DataUnusable(
            f"The images need about {2 * size / 1e9:.0f} GB of memory, but only {free / 1e9:.0f} GB are free. Use fewer images."
        )


def _cut_out(rgb: Image) -> tuple[Image, Image]:
    """Remove the white background of an iconic image, that is, all white pixels that are connected to the border.

    :returns: RGB ``[H, W, 3]`` and a mask ``[H, W]`` (0 to 255), both cropped to the object.
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
