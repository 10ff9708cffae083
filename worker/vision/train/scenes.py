"""Scenes to learn from, composed from photos that have a label and no box.

A tile is a part of a photo (its rectangle is the box), a cut-out is an iconic picture freed of its white ground or a
drawing. Everything is drawn from one generator, so a seed gives the same scenes again.
"""

from dataclasses import replace

import cv2
import numpy as np

from worker.vision.train import augment, drawings
from worker.vision.train.datasets import UNKNOWN, Photos, Scene
from worker.vision.train.drawings import Picture, Rng
from worker.vision.train.eval_scenes import place, turned

_REAL = 0.6
"""Share of pictures with boxes of their own, where there are any."""
_WHOLE = 0.45
"""Share of the others that are one photo, filling the frame."""
_SHARED = 0.3
"""Share of those before which one or two tiles of others lie: what is seen of either has to do (CutMix, Yun et al. 2019)."""
_DRAWN = 0.08
_CUTOUT = 0.15
_COVERED = 0.3
"""Share of photos, whole ones and tiles, of which parts are covered with a colour."""
_ENLARGED = 0.3
"""Share of all pictures that are composed at four fifths of the size and enlarged: many cameras' pictures are softer than reduced photos."""
_LEAST_SHARE = 0.4
"""Of a box, in a cropped picture: with less it is not asked for."""


def compose(photos: Photos, size: int, rng: Rng) -> Scene:
    """Make one scene of ``size`` pixels each way, with at least one box."""
    while True:
        made = size * 4 // 5 if rng.random() < _ENLARGED else size
        scene = _scene(photos, made, rng)
        if len(scene.boxes):
            return scene if made == size else _enlarged(scene, size)


def _scene(photos: Photos, size: int, rng: Rng) -> Scene:
    if photos.scenes and rng.random() < _REAL:
        return _real(photos.scenes[rng.integers(len(photos.scenes))], size, rng)
    if rng.random() < _WHOLE:
        return _whole(photos, size, rng)
    picture = _ground(photos, size, rng)
    drawn = rng.random() < _DRAWN
    sides = [int(size * rng.uniform(0.14, 0.62)) for _ in range(int(rng.integers(1, 7)))]
    boxes, kinds = _lay(picture, photos, sides, rng, drawn=drawn)
    return _known(augment.light(picture, rng), boxes, kinds)


def _enlarged(scene: Scene, size: int) -> Scene:
    picture = cv2.resize(scene.picture, (size, size), interpolation=cv2.INTER_LINEAR)
    return replace(scene, picture=picture, boxes=scene.boxes * np.float32(size / scene.picture.shape[0]))


def _whole(photos: Photos, size: int, rng: Rng) -> Scene:
    member = photos.draw(rng)
    picture = augment.light(augment.crop(photos.pictures[member], size, rng, least=0.25), rng)
    if rng.random() < _COVERED:
        augment.erase(picture, rng)
    boxes, kinds = [[0.0, 0.0, size, size]], [(int(photos.coarse[member]), int(photos.fine[member]))]
    if rng.random() < _SHARED:
        sides = [int(size * rng.uniform(0.2, 0.45)) for _ in range(int(rng.integers(1, 3)))]
        others = _lay(picture, photos, sides, rng, drawn=False)
        boxes, kinds = boxes + others[0], kinds + others[1]
    return _known(picture, boxes, kinds)


def _lay(picture: Picture, photos: Photos, sides: list[int], rng: Rng, *, drawn: bool) -> tuple[list[list[float]], list[tuple[int, int]]]:
    """Lay pieces with these sides on a picture, in place; one for which there is no room beside the others is left out.

    :returns: the boxes, and coarse and fine class of each.
    """
    boxes: list[list[float]] = []
    kinds: list[tuple[int, int]] = []
    for side in sides:
        piece, mask, coarse, fine = _piece(photos, side, rng, drawn=drawn)
        at = place(piece.shape[1], piece.shape[0], picture.shape[0], boxes, rng)
        if at is None:
            continue
        drawings.paste(picture, piece, mask, *at)
        boxes.append([at[0], at[1], at[0] + piece.shape[1], at[1] + piece.shape[0]])
        kinds.append((coarse, fine))
    return boxes, kinds


def _known(picture: Picture, boxes: list[list[float]], kinds: list[tuple[int, int]]) -> Scene:
    return Scene(picture, np.array(boxes, np.float32).reshape(-1, 4), *np.array(kinds, np.int64).reshape(-1, 2).T)


def _real(scene: Scene, size: int, rng: Rng) -> Scene:
    """Cut a part out of a picture with boxes, perhaps mirrored."""
    high, wide = scene.picture.shape[:2]
    share = rng.uniform(0.5, 1.0) if rng.random() < 0.7 else 1.0
    h, w = max(1, int(high * share)), max(1, int(wide * share))
    y, x = int(rng.integers(high - h + 1)), int(rng.integers(wide - w + 1))
    picture = cv2.resize(scene.picture[y : y + h, x : x + w], (size, size), interpolation=cv2.INTER_AREA)
    boxes = (scene.boxes - [x, y, x, y]) * [size / w, size / h, size / w, size / h]
    kept = boxes.clip(0, size)
    area, whole = ((one[:, 2] - one[:, 0]) * (one[:, 3] - one[:, 1]) for one in (kept, boxes))
    enough = (area >= _LEAST_SHARE * whole) & (kept[:, 2] - kept[:, 0] >= 2) & (kept[:, 3] - kept[:, 1] >= 2)
    kept = kept[enough]
    if rng.random() < 0.5:
        picture = np.ascontiguousarray(picture[:, ::-1])
        kept = np.stack([size - kept[:, 2], kept[:, 1], size - kept[:, 0], kept[:, 3]], 1)
    classes = scene.classes[enough]
    return Scene(augment.light(picture, rng), kept.astype(np.float32), classes, classes)  # as ``sources`` has it for what lies in the boxes


def _ground(photos: Photos, size: int, rng: Rng) -> Picture:
    if rng.random() < 0.5:
        return drawings.backdrop(size, size, rng)
    photo = augment.crop(photos.pictures[int(rng.integers(len(photos.pictures)))], size // 8, rng, least=0.35)
    blurred = cv2.resize(cv2.GaussianBlur(photo, (0, 0), 2.0), (size, size), interpolation=cv2.INTER_CUBIC)
    dimmed: Picture = cv2.convertScaleAbs(blurred, alpha=float(rng.uniform(0.4, 0.9)))
    return dimmed


def _piece(photos: Photos, side: int, rng: Rng, *, drawn: bool) -> tuple[Picture, Picture, int, int]:
    """Give a piece with its mask, its coarse and its fine class."""
    if drawn:
        names = [name for name in (*drawings.PRODUCE, *drawings.CARTONS) if name in photos.labels]
        if names:
            label = names[rng.integers(len(names))]
            piece, mask = (drawings.produce if label in drawings.PRODUCE else drawings.carton)(label, side, rng)
            return augment.light(piece, rng), mask, photos.labels.index(label), UNKNOWN
    if photos.cutouts and rng.random() < _CUTOUT:
        coarse, fine, piece, mask = photos.cutouts[rng.integers(len(photos.cutouts))]
        scale = side / max(mask.shape)
        wide, high = max(8, int(mask.shape[1] * scale)), max(8, int(mask.shape[0] * scale))
        return augment.light(cv2.resize(piece, (wide, high)), rng), cv2.resize(mask, (wide, high)), coarse, fine
    member = photos.draw(rng)
    tile = augment.light(augment.crop(photos.pictures[member], side, rng, least=0.4), rng)
    if rng.random() < _COVERED:
        augment.erase(tile, rng)
    piece, mask = turned(tile, float(rng.uniform(-12, 12)) if rng.random() < 0.5 else 0.0)
    return piece, mask, int(photos.coarse[member]), int(photos.fine[member])
