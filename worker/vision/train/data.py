"""What a detector learns from: labelled photos, cut-outs, and pictures with boxes where there are any."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.vision.train.draw import Picture

SIDE: Final = 256
"""Photos are kept as squares of this many pixels."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture ``[H, W, 3]`` whose boxes ``[n, 4]`` (x1, y1, x2, y2 in pixels) and classes ``[n]`` are known."""

    picture: Picture
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Photos:
    """Photos ``[n, SIDE, SIDE, 3]`` with their coarse and fine classes ``[n]``; cut-outs as (class, picture, mask); scenes."""

    labels: list[str]
    pictures: NDArray[np.uint8]
    coarse: NDArray[np.int64]
    fine: NDArray[np.int64]
    cutouts: list[tuple[int, Picture, Picture]] = field(default_factory=list)
    scenes: list[Scene] = field(default_factory=list)

    def split(self, each: int) -> tuple["Photos", "Photos"]:
        """Hold out the last ``each`` photos of every fine class: photos of one burst lie together.

        :returns: what to learn from, and the fold that is held out.
        """
        held = np.zeros(len(self.fine), bool)
        for one in np.unique(self.fine):
            held[np.flatnonzero(self.fine == one)[-each:]] = True
        return self._only(~held), replace(self._only(held), cutouts=[])

    def _only(self, some: NDArray[np.bool_]) -> "Photos":
        return replace(self, pictures=self.pictures[some], coarse=self.coarse[some], fine=self.fine[some])


def read_folder(folder: Path, split: str) -> Photos:
    """Read the photos that ``<split>.txt`` lists (``path, fine class, coarse class``) and the classes of ``classes.csv``."""
    rows = [line.split(", ") for line in (folder / f"{split}.txt").read_text().splitlines() if line.strip()]
    pictures = np.stack([square(_read(folder / row[0])) for row in rows])
    table = [line.split(",") for line in (folder / "classes.csv").read_text().splitlines()[1:] if line.strip()]
    labels = [""] * (max(int(row[3]) for row in table) + 1)
    cutouts = []
    for row in table:
        labels[int(row[3])] = row[2]
        iconic = folder / row[4].lstrip("/")
        if iconic.exists():
            cutouts.append((int(row[3]), *_free(_read(iconic))))
    return Photos(labels, pictures, np.array([int(row[2]) for row in rows]), np.array([int(row[1]) for row in rows]), cutouts)


def square(picture: Picture) -> Picture:
    """Bring a picture to ``SIDE`` pixels each way."""
    made: Picture = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return made


def _read(path: Path) -> Picture:
    read = cv2.imread(str(path))
    if read is None:
        raise FileNotFoundError(path)
    rgb: Picture = cv2.cvtColor(read, cv2.COLOR_BGR2RGB)
    return rgb


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
