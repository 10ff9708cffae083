"""Post-process the outputs of torchvision's SSD for all classes at once.

Torchvision's own code loops over the classes. With 90 classes, the loop takes as much time as running a small network.
"""

from typing import Any

import worker.vision.without_compiler  # noqa: F401 -- must be imported before torchvision

import torch
from torch import Tensor
from torchvision.ops import boxes as box_ops


def postprocess_detections(
    model: Any, heads: dict[str, Tensor], anchors: list[Tensor], sizes: list[tuple[int, int]]
) -> list[dict[str, Tensor]]:
    """Decode boxes, select them by score, and apply non-maximum suppression, as ``SSD.postprocess_detections`` does.

    :param model: the SSD; its thresholds and limits are used.
    :param heads: ``cls_logits`` ``[N, A, C]`` and ``bbox_regression`` ``[N, A, 4]``, for N images, A anchors, and C
        classes including the background.
    :param anchors: the anchors ``[A, 4]`` of each image, x1, y1, x2, y2 in pixels of the network's input.
    :param sizes: the height and width of each image in pixels of the network's input.
    :returns: for each image, ``boxes`` ``[D, 4]`` in pixels of the network's input, ``scores`` ``[D]``, and ``labels``
        ``[D]``, the highest score first.
    """
    results = []
    probabilities = torch.softmax(heads["cls_logits"], -1)
    for scores, offsets, image_anchors, size in zip(probabilities, heads["bbox_regression"], anchors, sizes, strict=True):
        anchor, label = torch.nonzero(scores[:, 1:] > model.score_thresh, as_tuple=True)
        label = label + 1
        anchor, label = _top_candidates(scores, anchor, label, model.topk_candidates)
        boxes = box_ops.clip_boxes_to_image(model.box_coder.decode_single(offsets[anchor], image_anchors[anchor]), size)
        selected = scores[anchor, label]
        kept = box_ops.batched_nms(boxes, selected, label, model.nms_thresh)[: model.detections_per_img]
        results.append({"boxes": boxes[kept], "scores": selected[kept], "labels": label[kept]})
    return results


def _top_candidates(scores: Tensor, anchor: Tensor, label: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Return, for each label, only the ``limit`` candidates with the highest scores.

    A candidate is a pair of an anchor and a label. ``anchor`` and ``label`` hold the indices of all candidates: the
    candidate at position i is the pair ``anchor[i]``, ``label[i]``.

    :param scores: the score of each anchor for each label, ``[A, C]``.
    :returns: ``anchor`` and ``label`` for the remaining candidates.
    """
    crowded_labels = torch.nonzero(torch.bincount(label, minlength=1) > limit).flatten()
    for crowded in crowded_labels.tolist():
        members = torch.nonzero(label == crowded).flatten()
        dropped = scores[anchor[members], crowded].argsort(descending=True)[limit:]
        mask = torch.ones(len(label), dtype=torch.bool, device=label.device)
        mask[members[dropped]] = False
        anchor, label = anchor[mask], label[mask]
    return anchor, label
