"""The last step of torchvision's SSD for all classes at once: its own loop over 90 classes costs as much as a small network."""

from typing import Any

import worker.vision.without_compiler  # noqa: F401 -- before torchvision

import torch
from torch import Tensor
from torchvision.ops import boxes as box_ops


def postprocess(model: Any, heads: dict[str, Tensor], anchors: list[Tensor], sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
    """Do what ``SSD.postprocess_detections`` does: decode, select by score, suppress what overlaps.

    :param heads: ``cls_logits`` ``[N, A, C]`` and ``bbox_regression`` ``[N, A, 4]``.
    :param anchors: of each picture, ``[A, 4]``.
    :param sizes: height and width of each picture in the network's pixels.
    """
    found = []
    every = torch.softmax(heads["cls_logits"], -1)
    for scores, offsets, places, size in zip(every, heads["bbox_regression"], anchors, sizes, strict=True):
        at, label = torch.nonzero(scores[:, 1:] > model.score_thresh, as_tuple=True)
        label = label + 1
        at, label = _best(scores, at, label, model.topk_candidates)
        boxes = box_ops.clip_boxes_to_image(model.box_coder.decode_single(offsets[at], places[at]), size)
        chosen = scores[at, label]
        kept = box_ops.batched_nms(boxes, chosen, label, model.nms_thresh)[: model.detections_per_img]
        found.append({"boxes": boxes[kept], "scores": chosen[kept], "labels": label[kept]})
    return found


def _best(scores: Tensor, at: Tensor, label: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Keep the best ``most`` anchors of each label."""
    crowded = torch.nonzero(torch.bincount(label, minlength=1) > most).flatten()
    for one in crowded.tolist():
        mine = torch.nonzero(label == one).flatten()
        fallen = scores[at[mine], one].argsort(descending=True)[most:]
        left = torch.ones(len(label), dtype=torch.bool, device=label.device)
        left[mine[fallen]] = False
        at, label = at[left], label[left]
    return at, label
