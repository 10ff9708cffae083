"""Data to train and evaluate a detector: labelled photos, cutouts, images with boxes.

``dataset_readers`` reads them.
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.vision.train.drawings import Image, Rng

UNKNOWN: Final = -1
"""The fine class of an object that has none."""
TRAIN_SIDE: Final = 352
"""Training photos are kept as squares of this many pixels, so that parts of them still fill a detector's input."""


@dataclass(frozen=True, slots=True)
class Scene:
    """An RGB image ``[H, W, 3]`` with known boxes ``[n, 4]`` (x1, y1, x2, y2 in pixels) and classes ``[n]``.

    ``fine`` holds the fine classes ``[n]``, ``UNKNOWN`` where there is none; None where fine classes are not used.
    """

    image: Image
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    fine: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Photos:
    """Photos ``[n, side, side, 3]`` with their coarse and fine classes ``[n]``.

    ``cutouts`` are (coarse class, fine class or ``UNKNOWN``, image, mask). If the data has boxes, ``scenes`` holds its
    images, the photos are the contents of their boxes, and ``scene_index`` holds for each photo the index of its scene.
    """

    labels: list[str]
    images: NDArray[np.uint8]
    coarse: NDArray[np.int64]
    fine: NDArray[np.int64]
    cutouts: list[tuple[int, int, Image, Image]] = field(default_factory=list)
    scenes: list[Scene] = field(default_factory=list)
    scene_index: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    _cumulative_weights: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        weights = np.bincount(self.coarse)[self.coarse] ** -0.5
        object.__setattr__(self, "_cumulative_weights", np.cumsum(weights))

    def sample(self, rng: Rng) -> int:
        """Return the index of a random photo.

        The probability of a class is proportional to the square root of the number of its photos: rare classes are
        shown more often than they occur.
        """
        return int(np.searchsorted(self._cumulative_weights, rng.random() * self._cumulative_weights[-1], side="right"))

    def split(self) -> tuple["Photos", "Photos"]:
        """Hold out a fold: every tenth scene, or the last two photos of every fine class with more than four.

        Photos of one burst are adjacent in the list.

        :returns: the photos to train on, and the fold.
        """
        if self.scenes:
            in_fold = np.arange(len(self.scenes)) % 10 == 9
            return self._select_scenes(~in_fold), self._select_scenes(in_fold)
        held_out = np.zeros(len(self.fine), bool)
        for fine_class in np.unique(self.fine):
            members = np.flatnonzero(self.fine == fine_class)
            held_out[members[-2:] if len(members) > 4 else members[:0]] = True
        return self._select(~held_out), replace(self._select(held_out), cutouts=[])

    def resized(self, side: int) -> "Photos":
        """Return the same photos as squares of ``side`` pixels."""
        if not len(self.images):
            return self
        return replace(self, images=np.stack([resize_square(image, side) for image in self.images]))

    def digest(self) -> str:
        """Return the SHA-256 of all training data, in hexadecimal."""
        parts = [self.images, self.coarse, self.fine]
        for coarse, fine, image, mask in self.cutouts:
            parts += [np.array([coarse, fine]), image, mask]
        for scene in self.scenes:
            parts += [scene.image, scene.boxes, scene.classes]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    def _select(self, mask: NDArray[np.bool_]) -> "Photos":
        return replace(self, images=self.images[mask], coarse=self.coarse[mask], fine=self.fine[mask])

    def _select_scenes(self, mask: NDArray[np.bool_]) -> "Photos":
        scenes = [scene for scene, kept in zip(self.scenes, mask, strict=True) if kept]
        kept = mask[self.scene_index]
        return replace(self._select(kept), scenes=scenes, scene_index=(np.cumsum(mask) - 1)[self.scene_index[kept]])


def resize_square(image: Image, side: int) -> Image:
    """Resize an image to ``side`` x ``side`` pixels; the aspect ratio is not kept."""
    resized: Image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return resized
