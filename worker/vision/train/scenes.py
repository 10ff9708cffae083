"""Compose training scenes with known boxes, mainly from photos that have a label but no box.

A scene is a crop of an image with boxes, a whole photo, or a background with pieces. A piece is a tile, a cutout, or a
drawing. A tile is a part of a photo, and its rectangle is the box. A cutout is an iconic image without its white
background. All random choices come from one generator, so that a seed always gives the same scenes.
"""

from dataclasses import replace

import cv2
import numpy as np

from worker.vision.train import augment, drawings
from worker.vision.train.datasets import UNKNOWN, Photos, Scene
from worker.vision.train.drawings import Image, Rng
from worker.vision.train.eval_scenes import find_place, rotate

_OWN_BOXES_SHARE = 0.6
"""Share of the scenes that are cropped from images with boxes, if the data contains such images."""
_WHOLE_PHOTO_SHARE = 0.45
"""Share of whole photos among the scenes that are not cropped from images with boxes. A whole photo fills the frame."""
_OCCLUDED_SHARE = 0.3
"""Share of the whole photos on which one or two pieces are pasted, so that the network learns to classify objects that
are partly hidden (CutMix, Yun et al. 2019)."""
_DRAWN_SHARE = 0.08
_CUTOUT_SHARE = 0.15
_ERASED_SHARE = 0.3
"""Share of the photos, both whole photos and tiles, in which some rectangles are filled with a colour."""
_ENLARGED_SHARE = 0.3
"""Share of all scenes that are composed at four fifths of their size and then enlarged, because the images of many
cameras are softer than reduced photos."""
_MIN_VISIBLE = 0.4
"""A box in a cropped image is dropped if less than this share of its area is inside the crop."""


def compose(photos: Photos, size: int, rng: Rng) -> Scene:
    """Compose one scene with ``size`` x ``size`` pixels and at least one box.

    The attribute ``fine`` of the scene is never None.
    """
    while True:
        composed_size = size * 4 // 5 if rng.random() < _ENLARGED_SHARE else size
        scene = _compose_once(photos, composed_size, rng)
        if len(scene.boxes):
            return scene if composed_size == size else _enlarge(scene, size)


def _compose_once(photos: Photos, size: int, rng: Rng) -> Scene:
    if photos.scenes and rng.random() < _OWN_BOXES_SHARE:
        return _crop_scene(photos.scenes[rng.integers(len(photos.scenes))], size, rng)
    if rng.random() < _WHOLE_PHOTO_SHARE:
        return _whole_photo(photos, size, rng)
    image = _background(photos, size, rng)
    drawn = rng.random() < _DRAWN_SHARE
    sides = [int(size * rng.uniform(0.14, 0.62)) for _ in range(int(rng.integers(1, 7)))]
    boxes, classes = _paste_pieces(image, photos, sides, rng, drawn=drawn)
    return _make_scene(augment.photometric_distort(image, rng), boxes, classes)


def _enlarge(scene: Scene, size: int) -> Scene:
    image = cv2.resize(scene.image, (size, size), interpolation=cv2.INTER_LINEAR)
    return replace(scene, image=image, boxes=scene.boxes * np.float32(size / scene.image.shape[0]))


def _whole_photo(photos: Photos, size: int, rng: Rng) -> Scene:
    index = photos.sample(rng)
    image = augment.photometric_distort(augment.random_crop(photos.images[index], size, rng, min_area=0.25), rng)
    if rng.random() < _ERASED_SHARE:
        augment.random_erase(image, rng)
    boxes, classes = [[0.0, 0.0, size, size]], [(int(photos.coarse[index]), int(photos.fine[index]))]
    if rng.random() < _OCCLUDED_SHARE:
        sides = [int(size * rng.uniform(0.2, 0.45)) for _ in range(int(rng.integers(1, 3)))]
        others = _paste_pieces(image, photos, sides, rng, drawn=False)
        boxes, classes = boxes + others[0], classes + others[1]
    return _make_scene(image, boxes, classes)


def _paste_pieces(image: Image, photos: Photos, sides: list[int], rng: Rng, *, drawn: bool) -> tuple[list[list[float]], list[tuple[int, int]]]:
    """Paste pieces on an image, in place. A piece is left out if there is no place for it among the other pieces.

    :param sides: the side of each piece in pixels, before rotation.
    :param drawn: whether the pieces are drawings. If there is no drawing for any of the labels, it is ignored.
    :returns: the boxes, and for each box its coarse and its fine class.
    """
    boxes: list[list[float]] = []
    classes: list[tuple[int, int]] = []
    for side in sides:
        piece, mask, coarse, fine = _piece(photos, side, rng, drawn=drawn)
        corner = find_place(piece.shape[1], piece.shape[0], image.shape[0], boxes, rng)
        if corner is None:
            continue
        drawings.paste(image, piece, mask, *corner)
        boxes.append([corner[0], corner[1], corner[0] + piece.shape[1], corner[1] + piece.shape[0]])
        classes.append((coarse, fine))
    return boxes, classes


def _make_scene(image: Image, boxes: list[list[float]], classes: list[tuple[int, int]]) -> Scene:
    return Scene(image, np.array(boxes, np.float32).reshape(-1, 4), *np.array(classes, np.int64).reshape(-1, 2).T)


def _crop_scene(scene: Scene, size: int, rng: Rng) -> Scene:
    """Cut a random part out of an image with boxes, and mirror it randomly."""
    height, width = scene.image.shape[:2]
    share = rng.uniform(0.5, 1.0) if rng.random() < 0.7 else 1.0
    h, w = max(1, int(height * share)), max(1, int(width * share))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    image = cv2.resize(scene.image[y : y + h, x : x + w], (size, size), interpolation=cv2.INTER_AREA)
    boxes = (scene.boxes - [x, y, x, y]) * [size / w, size / h, size / w, size / h]
    clipped = boxes.clip(0, size)
    visible_area, area = ((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]) for corners in (clipped, boxes))
    kept = (visible_area >= _MIN_VISIBLE * area) & (clipped[:, 2] - clipped[:, 0] >= 2) & (clipped[:, 3] - clipped[:, 1] >= 2)
    clipped = clipped[kept]
    if rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
        clipped = np.stack([size - clipped[:, 2], clipped[:, 1], size - clipped[:, 0], clipped[:, 3]], 1)
    classes = scene.classes[kept]
    # An image with boxes has no fine classes, so the coarse classes are used instead, as in ``dataset_readers``.
    return Scene(augment.photometric_distort(image, rng), clipped.astype(np.float32), classes, classes)


def _background(photos: Photos, size: int, rng: Rng) -> Image:
    if rng.random() < 0.5:
        return drawings.draw_background(size, size, rng)
    photo = augment.random_crop(photos.images[int(rng.integers(len(photos.images)))], size // 8, rng, min_area=0.35)
    blurred = cv2.resize(cv2.GaussianBlur(photo, (0, 0), 2.0), (size, size), interpolation=cv2.INTER_CUBIC)
    dimmed: Image = cv2.convertScaleAbs(blurred, alpha=float(rng.uniform(0.4, 0.9)))
    return dimmed


def _piece(photos: Photos, side: int, rng: Rng, *, drawn: bool) -> tuple[Image, Image, int, int]:
    """Make a random piece, and return it with its mask, its coarse class, and its fine class."""
    if drawn:
        names = [name for name in (*drawings.PRODUCE, *drawings.CARTONS) if name in photos.labels]
        if names:
            label = names[rng.integers(len(names))]
            draw = drawings.draw_produce if label in drawings.PRODUCE else drawings.draw_carton
            piece, mask = draw(label, side, rng)
            return augment.photometric_distort(piece, rng), mask, photos.labels.index(label), UNKNOWN
    if photos.cutouts and rng.random() < _CUTOUT_SHARE:
        coarse, fine, piece, mask = photos.cutouts[rng.integers(len(photos.cutouts))]
        scale = side / max(mask.shape)
        width, height = max(8, int(mask.shape[1] * scale)), max(8, int(mask.shape[0] * scale))
        return augment.photometric_distort(cv2.resize(piece, (width, height)), rng), cv2.resize(mask, (width, height)), coarse, fine
    index = photos.sample(rng)
    tile = augment.photometric_distort(augment.random_crop(photos.images[index], side, rng, min_area=0.4), rng)
    if rng.random() < _ERASED_SHARE:
        augment.random_erase(tile, rng)
    piece, mask = rotate(tile, float(rng.uniform(-12, 12)) if rng.random() < 0.5 else 0.0)
    return piece, mask, int(photos.coarse[index]), int(photos.fine[index])
