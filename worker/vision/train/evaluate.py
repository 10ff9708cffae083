"""Evaluate a detector: the labels that it gives to whole photos, and the boxes that it finds in scenes."""

import math
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from worker.vision.detection.detect import Detector
from worker.vision.train import eval_scenes
from worker.vision.train.datasets import Photos, Scene
from worker.vision.train.drawings import Image

SCENES: Final = 500
SCENE_SEED: Final = 7_000_000
SEEN_SCORE: Final = 0.3
"""A photo counts as seen if it has a detection with at least this score."""

Item = TypeVar("Item")
Detections = list[dict[str, Any]]


def evaluate_photos(detector: Detector, images: Iterable[Image], labels: list[str]) -> dict[str, float]:
    """Evaluate a detector on photos with one label each.

    A photo counts as correct if the label of its best detection is the photo's label.

    :param images: photos, RGB ``[H, W, 3]``, of any size.
    :param labels: the label of each photo.
    :returns: ``top1`` (share of correct photos), ``top1_low`` and ``top1_high`` (its 95% interval, Wilson 1927),
        ``seen`` (share of photos with a detection whose score is at least ``SEEN_SCORE``), and ``photos`` (number of
        photos).
    """
    right = seen = total = 0
    truths = iter(labels)
    for batch in _batches(_with_progress(images, len(labels), "photos"), detector.batch_size):
        for found in detector.predict(batch):
            seen += bool(found) and found[0]["score"] >= SEEN_SCORE
            right += next(truths) == (found[0]["label"] if found else None)
            total += 1
    low, high = _wilson(right, total)
    return {"photos": total, "top1": right / total, "top1_low": low, "top1_high": high, "seen": seen / total}


def compose_scenes(photos: Photos, count: int) -> Iterator[Scene]:
    """Compose ``count`` evaluation scenes from photos; the same photos always give the same scenes."""
    return (eval_scenes.compose(photos, SCENE_SEED + number) for number in range(count))


def evaluate_scenes(detector: Detector, scenes: Iterable[Scene], count: int, labels: list[str]) -> dict[str, float]:
    """Evaluate a detector on scenes with known boxes.

    :param count: number of scenes.
    :param labels: the names of the classes, by index.
    :returns: ``map50``, the average precision at an IoU of 0.5, averaged over all labels that occur in the scenes;
        ``threshold``, the score threshold with the best F1 over all labels; and ``scenes``, the number of scenes. All
        detections whose score is above the network's own threshold are used.
    """
    hits: dict[str, list[tuple[float, bool]]] = {}
    truths: dict[str, int] = {}
    for batch in _batches(_with_progress(scenes, count, "scenes"), detector.batch_size):
        predictions = detector.predict([scene.image for scene in batch], threshold=0.0)
        for scene, found in zip(batch, predictions, strict=True):
            names = [labels[int(class_index)] for class_index in scene.classes]
            for name in names:
                truths[name] = truths.get(name, 0) + 1
            for detection, hit in zip(found, match_detections(found, scene.boxes, names), strict=True):
                hits.setdefault(detection["label"], []).append((detection["score"], hit))
    precisions = [_average_precision(hits.get(name, []), total) for name, total in truths.items()]
    all_hits = [hit for of_label in hits.values() for hit in of_label]
    return {
        "scenes": count,
        "map50": float(np.mean(precisions)) if precisions else 0.0,
        "threshold": _best_threshold(all_hits, sum(truths.values())),
    }


def match_detections(found: Detections, boxes: NDArray[np.float32], names: list[str]) -> list[bool]:
    """Return, for each detection, whether it matches a true box with the same label (IoU >= 0.5).

    A box can be matched only once. Further detections of the same object count as not matching.

    :param found: detections, in descending order of their scores.
    :param boxes: the true boxes in the scene.
    :param names: the label of each true box.
    """
    free = [True] * len(names)
    hits = []
    for detection in found:
        overlaps = [
            _iou(detection["box"], box) if name == detection["label"] and is_free else 0.0
            for box, name, is_free in zip(boxes, names, free, strict=True)
        ]
        best = int(np.argmax(overlaps)) if overlaps else -1
        hits.append(best >= 0 and overlaps[best] >= 0.5)
        if hits[-1]:
            free[best] = False
    return hits


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _with_progress(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Yield the items, and show the progress on standard error if it is a terminal."""
    interactive = sys.stderr.isatty()
    for number, item in enumerate(items, 1):
        if interactive:
            sys.stderr.write(f"\r{number} of {total} {what}" + ("\n" if number == total else ""))
        yield item


def _average_precision(hits: list[tuple[float, bool]], total: int) -> float:
    """Return the area under the precision-recall curve with monotone precision (Everingham et al. 2010).

    :param hits: for each detection, its score, and whether it matches a true box.
    :param total: number of true boxes.
    """
    ordered = np.array([is_hit for _, is_hit in sorted(hits, key=lambda hit: -hit[0])], bool)
    if not len(ordered):
        return 0.0
    precision = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    monotone = np.maximum.accumulate(precision[::-1])[::-1]
    return float(monotone[ordered].sum() / total)


def _best_threshold(hits: list[tuple[float, bool]], total: int) -> float:
    if not hits:
        return 0.0
    ordered = sorted(hits, key=lambda hit: -hit[0])
    right = np.cumsum([is_hit for _, is_hit in ordered])
    f1 = 2 * right / (np.arange(1, len(ordered) + 1) + total)
    return float(ordered[int(np.argmax(f1))][0])


def _iou(a: list[float], b: NDArray[np.float32]) -> float:
    width = min(a[2], float(b[2])) - max(a[0], float(b[0]))
    height = min(a[3], float(b[3])) - max(a[1], float(b[1]))
    if width <= 0 or height <= 0:
        return 0.0
    total = (a[2] - a[0]) * (a[3] - a[1]) + float((b[2] - b[0]) * (b[3] - b[1]))
    return width * height / (total - width * height)


def _wilson(right: int, total: int) -> tuple[float, float]:
    z = 1.96
    share = right / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (middle - spread) / (1 + z * z / total), (middle + spread) / (1 + z * z / total)
