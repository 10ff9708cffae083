"""How well a detector sees: labels of whole photos, and boxes in scenes."""

import math
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from worker.vision.detection.detect import Detector
from worker.vision.train import eval_scenes
from worker.vision.train.datasets import Photos, Scene
from worker.vision.train.drawings import Picture

SCENES: Final = 500
SCENE_SEED: Final = 7_000_000
SEEN: Final = 0.3
"""A photo counts as seen with a detection of at least this score."""

Item = TypeVar("Item")
Found = list[dict[str, Any]]


def photos(detector: Detector, pictures: Iterable[Picture], labels: list[str]) -> dict[str, float]:
    """Judge by photos with one label each: the label of the best detection against the photo's own.

    :param pictures: RGB ``[H, W, 3]`` of any size.
    :returns: ``top1`` with its 95% interval (Wilson 1927), ``seen`` (share with a detection of at least ``SEEN``), ``photos``.
    """
    right = seen = total = 0
    truths = iter(labels)
    for some in _groups(_told(pictures, len(labels), "photos"), detector.batch_size):
        for found in detector.predict(some):
            seen += bool(found) and found[0]["score"] >= SEEN
            right += next(truths) == (found[0]["label"] if found else None)
            total += 1
    low, high = _wilson(right, total)
    return {"photos": total, "top1": right / total, "top1_low": low, "top1_high": high, "seen": seen / total}


def composed(photos: Photos, count: int) -> Iterator[Scene]:
    """Give the scenes of the examination, composed from photos."""
    return (eval_scenes.scene(photos, SCENE_SEED + number) for number in range(count))


def scenes(detector: Detector, given: Iterable[Scene], count: int, labels: list[str]) -> dict[str, float]:
    """Judge by scenes with known boxes.

    :returns: ``map50``, the mean over the labels that occur of the average precision at an overlap of 0.5, counted over all
        detections down to the network's own floor; ``threshold``, the least score at which F1 over all labels is best.
    """
    hits: dict[str, list[tuple[float, bool]]] = {}
    truths: dict[str, int] = {}
    for some in _groups(_told(given, count, "scenes"), detector.batch_size):
        for scene, found in zip(some, detector.predict([one.picture for one in some], threshold=0.0), strict=True):
            names = [labels[int(one)] for one in scene.classes]
            for name in names:
                truths[name] = truths.get(name, 0) + 1
            for one, hit in zip(found, matched(found, scene.boxes, names), strict=True):
                hits.setdefault(one["label"], []).append((one["score"], hit))
    precisions = [_average_precision(hits.get(name, []), total) for name, total in truths.items()]
    everything = [one for some in hits.values() for one in some]
    return {
        "scenes": count,
        "map50": float(np.mean(precisions)) if precisions else 0.0,
        "threshold": _best_threshold(everything, sum(truths.values())),
    }


def matched(found: Found, boxes: NDArray[np.float32], names: list[str]) -> list[bool]:
    """Say of each detection, the best first, whether it is the first on a box of its label (overlap of 0.5 or more)."""
    free = [True] * len(names)
    hits = []
    for one in found:
        overlaps = [_overlap(one["box"], box) if name == one["label"] and ok else 0.0 for box, name, ok in zip(boxes, names, free, strict=True)]
        best = int(np.argmax(overlaps)) if overlaps else -1
        hits.append(best >= 0 and overlaps[best] >= 0.5)
        if hits[-1]:
            free[best] = False
    return hits


def _groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    group: list[Item] = []
    for one in items:
        group.append(one)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _told(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Show progress where somebody watches."""
    watched = sys.stderr.isatty()
    for number, one in enumerate(items, 1):
        if watched:
            sys.stderr.write(f"\r{number} of {total} {what}" + ("\n" if number == total else ""))
        yield one


def _average_precision(found: list[tuple[float, bool]], total: int) -> float:
    """Area under the precision-recall curve, with the precision made monotone (Everingham et al. 2010)."""
    ordered = np.array([hit for _, hit in sorted(found, key=lambda one: -one[0])], bool)
    if not len(ordered):
        return 0.0
    precision = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here[ordered].sum() / total)


def _best_threshold(found: list[tuple[float, bool]], total: int) -> float:
    if not found:
        return 0.0
    ordered = sorted(found, key=lambda one: -one[0])
    right = np.cumsum([hit for _, hit in ordered])
    f1 = 2 * right / (np.arange(1, len(ordered) + 1) + total)
    return float(ordered[int(np.argmax(f1))][0])


def _overlap(a: list[float], b: NDArray[np.float32]) -> float:
    width = min(a[2], float(b[2])) - max(a[0], float(b[0]))
    height = min(a[3], float(b[3])) - max(a[1], float(b[1]))
    if width <= 0 or height <= 0:
        return 0.0
    both = (a[2] - a[0]) * (a[3] - a[1]) + float((b[2] - b[0]) * (b[3] - b[1]))
    return width * height / (both - width * height)


def _wilson(right: int, total: int) -> tuple[float, float]:
    z = 1.96
    share = right / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (middle - spread) / (1 + z * z / total), (middle + spread) / (1 + z * z / total)
