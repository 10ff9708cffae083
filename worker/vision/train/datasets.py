"""What a detector learns from and is judged by: labelled photos, cut-outs, pictures with boxes. ``sources`` reads them."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.vision.train.drawings import Picture, Rng

UNKNOWN: Final = -1
"""The fine class of a thing that has none."""
LEARNED_SIDE: Final = 352
"""Photos to learn from are kept as squares of this many pixels: parts of them still fill a detector's input."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture ``[H, W, 3]`` whose boxes ``[n, 4]`` (x1, y1, x2, y2 in pixels) and classes ``[n]`` are known.

    ``fine`` are the fine classes ``[n]``, ``UNKNOWN`` where there is none; None where nobody asks.
    """

    picture: Picture
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    fine: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Photos:
    """Photos ``[n, side, side, 3]`` with their coarse and fine classes ``[n]``.

    ``cutouts`` are (coarse class, fine class or ``UNKNOWN``, picture, mask). Where the data has boxes, ``scenes`` are its pictures, the photos are what lies in
    their boxes, and ``origin`` says for each photo which scene it is from.
    """

    labels: list[str]
    pictures: NDArray[np.uint8]
    coarse: NDArray[np.int64]
    fine: NDArray[np.int64]
    cutouts: list[tuple[int, int, Picture, Picture]] = field(default_factory=list)
    scenes: list[Scene] = field(default_factory=list)
    origin: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    _reach: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        """Work out how often each photo is drawn."""
        counts = np.bincount(self.coarse)[self.coarse]
        object.__setattr__(self, "_reach", np.cumsum(counts**-0.5))

    def draw(self, rng: Rng) -> int:
        """Draw a photo's number, a class as often as the root of its photos: the rare are shown more often than they occur."""
        return int(np.searchsorted(self._reach, rng.random() * self._reach[-1], side="right"))

    def split(self) -> tuple["Photos", "Photos"]:
        """Hold out a fold: every tenth scene, or the last two photos of every fine class (those of a burst lie together).

        :returns: what to learn from, and the fold.
        """
        if self.scenes:
            apart = np.arange(len(self.scenes)) % 10 == 9
            return self._scenes(~apart), self._scenes(apart)
        held = np.zeros(len(self.fine), bool)
        for one in np.unique(self.fine):
            members = np.flatnonzero(self.fine == one)
            held[members[-2:] if len(members) > 4 else members[:0]] = True
        return self._only(~held), replace(self._only(held), cutouts=[])

    def reduced(self, side: int) -> "Photos":
        """Give the same photos as squares of ``side`` pixels."""
        return replace(self, pictures=np.stack([square(one, side) for one in self.pictures])) if len(self.pictures) else self

    def digest(self) -> str:
        """Give the sha256 of all that is learned from."""
        parts = [self.pictures, self.coarse, self.fine]
        for coarse, fine, picture, mask in self.cutouts:
            parts += [np.array([coarse, fine]), picture, mask]
        for scene in self.scenes:
            parts += [scene.picture, scene.boxes, scene.classes]
        digest = hashlib.sha256()
        for one in parts:
            digest.update(np.ascontiguousarray(one).data)
        return digest.hexdigest()

    def _only(self, some: NDArray[np.bool_]) -> "Photos":
        return replace(self, pictures=self.pictures[some], coarse=self.coarse[some], fine=self.fine[some])

    def _scenes(self, some: NDArray[np.bool_]) -> "Photos":
        scenes = [scene for scene, kept in zip(self.scenes, some, strict=True) if kept]
        kept = some[self.origin]
        return replace(self._only(kept), scenes=scenes, origin=(np.cumsum(some) - 1)[self.origin[kept]])


def square(picture: Picture, side: int) -> Picture:
    """Bring a picture to ``side`` pixels each way."""
    made: Picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return made
