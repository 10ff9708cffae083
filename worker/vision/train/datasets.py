"""Data for training and evaluating a detector: labelled photos, cutouts, and images with boxes.

The module ``dataset_readers`` reads the data from files.
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.vision.train.drawings import Image, Rng

UNKNOWN: Final = -1
"""The value that stands for a missing fine class."""
TRAIN_SIDE: Final = 352
"""Training photos are stored as squares with this side in pixels, so that even a part of a photo has enough pixels to
fill a detector's input."""


@dataclass(frozen=True, slots=True)
class Scene:
    """An RGB image ``[H, W, 3]`` with known boxes ``[n, 4]`` (x1, y1, x2, y2 in pixels) and classes ``[n]``.

    ``fine`` holds the fine class of each box ``[n]``, or ``UNKNOWN`` if the box has none. ``fine`` is None if fine
    classes are not used.
    """

    image: Image
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    fine: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Photos:
    """Photos ``[n, side, side, 3]`` with their coarse and fine classes ``[n]``.

    Each of ``cutouts`` is a tuple of coarse class, fine class or ``UNKNOWN``, image, and mask. If the data consists of
    images with boxes, ``scenes`` holds these images, each photo is the content of one box, and ``scene_index`` holds,
    for each photo, the index of the scene that it was taken from.
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

        The probability of a class is proportional to the square root of the number of its photos. So a photo of a rare
        class is returned with a higher probability than a photo of a frequent class.
        """
        return int(np.searchsorted(self._cumulative_weights, rng.random() * self._cumulative_weights[-1], side="right"))

    def split(self) -> tuple["Photos", "Photos"]:
        """Split the photos into those for training and a held-out fold.

        If the data consists of images with boxes (``scenes``), the fold consists of every tenth image. Otherwise, the
        fold consists of the last two photos of each fine class that has more than four photos. These photos are not
        chosen randomly, because photos of one burst are adjacent in the list and look alike. A random choice would
        divide many bursts between the two parts, so the detector would already know similar photos when it is evaluated
        on the fold.

        :returns: the photos for training, and the fold.
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
        """Return a copy in which the photos are resized to ``side`` x ``side`` pixels."""
        if not len(self.images):
            return self
        return replace(self, images=np.stack([resize_square(image, side) for image in self.images]))

    def digest(self) -> str:
        """Return the SHA-256 digest of all training data, in hexadecimal."""
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
    """Resize an image to ``side`` x ``side`` pixels without keeping its aspect ratio."""
    resized: Image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return resized
