"""How well a detector sees: labels of whole photos, and boxes in composed scenes."""

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.vision import imaging
from worker.vision.detect import BATCH, Detector
from worker.vision.train import exam
from worker.vision.train.data import Photos

SCENES: Final = 500
SCENE_SEED: Final = 7_000_000
_MAX_PIXELS: Final = 50_000_000


def photos(detector: Detector, folder: Path, split: str, labels: list[str]) -> dict[str, Any]:
    """Judge by the photos of a split: the label of the best detection against the photo's own.

    :returns: ``top1`` with its 95% interval (Wilson), ``seen`` (share with a detection of at least 0.3), ``photos``.
    """
    rows = [line.split(", ") for line in (folder / f"{split}.txt").read_text().splitlines() if line.strip()]
    right = seen = 0
    for begin in range(0, len(rows), BATCH):
        some = rows[begin : begin + BATCH]
        pictures = [imaging.decode((folder / row[0]).read_bytes(), max_pixels=_MAX_PIXELS).rgb for row in some]
        for row, found in zip(some, detector.predict(pictures), strict=True):
            seen += bool(found) and found[0]["score"] >= 0.3
            right += bool(found) and found[0]["label"] == labels[int(row[2])]
    low, high = _wilson(right, len(rows))
    return {"photos": len(rows), "top1": right / len(rows), "top1_low": low, "top1_high": high, "seen": seen / len(rows)}


def composed(detector: Detector, known: Photos, count: int = SCENES) -> dict[str, float]:
    """Judge by composed scenes: mean average precision at an overlap of 0.5, over the labels that occur."""
    hits: dict[str, list[tuple[float, bool]]] = {}
    truths: dict[str, int] = {}
    for number in range(count):
        scene = exam.scene(known, SCENE_SEED + number)
        names = [known.labels[int(one)] for one in scene.classes]
        for name in names:
            truths[name] = truths.get(name, 0) + 1
        free = [True] * len(names)
        for found in detector.predict([scene.picture])[0]:
            overlaps = [_overlap(found["box"], box) if name == found["label"] and ok else 0.0 for box, name, ok in zip(scene.boxes, names, free, strict=True)]
            best = int(np.argmax(overlaps)) if overlaps else -1
            hit = best >= 0 and overlaps[best] >= 0.5
            if hit:
                free[best] = False
            hits.setdefault(found["label"], []).append((found["score"], hit))
    precisions = [_average_precision(hits.get(name, []), total) for name, total in truths.items()]
    return {"scenes": float(count), "map50": float(np.mean(precisions)) if precisions else 0.0}


def _average_precision(found: list[tuple[float, bool]], total: int) -> float:
    ordered = np.array([hit for _, hit in sorted(found, key=lambda one: -one[0])], bool)
    if not len(ordered):
        return 0.0
    right = np.cumsum(ordered)
    precision = right / np.arange(1, len(ordered) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here[ordered].sum() / total)


def _overlap(a: list[float], b: NDArray[np.float32]) -> float:
    width = min(a[2], float(b[2])) - max(a[0], float(b[0]))
    height = min(a[3], float(b[3])) - max(a[1], float(b[1]))
    if width <= 0 or height <= 0:
        return 0.0
    both = (a[2] - a[0]) * (a[3] - a[1]) + float((b[2] - b[0]) * (b[3] - b[1]))
    return width * height / (both - width * height)


def _wilson(right: int, total: int) -> tuple[float, float]:
    """95% interval of a share (Wilson 1927)."""
    z = 1.96
    share = right / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (middle - spread) / (1 + z * z / total), (middle + spread) / (1 + z * z / total)
