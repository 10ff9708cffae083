"""Add a second head to the detector for training, which predicts the fine class of each detected object.

The detector's own labels are coarse classes, so they only teach the backbone to distinguish, for example, apples from
pears. The fine classes teach it to distinguish varieties of apples as well, and the features that this requires also
help to distinguish apples from pears. So the second head trains the backbone on coarse and fine classes, as in the
classification stage (Xie et al. 2015). The second head is removed when the training ends.
"""

from collections.abc import Callable
from typing import Any, Final

import worker.vision.without_compiler  # noqa: F401 -- must be imported before torchvision

import torch
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSD, SSDScoringHead

from worker.vision.detection.network import FIRST_MAP, WIDTHS
from worker.vision.train.datasets import UNKNOWN

_PREFIX: Final = "head.fine_head."


class _Heads(nn.Module):
    def __init__(self, head: Any, fine: int, anchors: list[int]) -> None:
        super().__init__()
        self.classification_head = head.classification_head
        self.regression_head = head.regression_head
        layers = [nn.Conv2d(width, count * fine, 1) for width, count in zip(WIDTHS[FIRST_MAP:], anchors, strict=True)]
        self.fine_head = SSDScoringHead(nn.ModuleList(layers), fine)

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        return {"bbox_regression": self.regression_head(maps), "cls_logits": self.classification_head(maps), "fine_logits": self.fine_head(maps)}


def add_fine_head(model: SSD, fine: int, weight: float) -> SSD:
    """Add a second head, and a third loss with the name ``fine``, to a detector, in place.

    The targets that are passed to the detector for training must have an entry ``fine`` ``[n]``. It holds the fine
    class of each box, or ``UNKNOWN`` if the box has none.

    :param fine: number of fine classes.
    :param weight: weight of the third loss.
    :returns: ``model`` itself.
    """
    parts: Any = model
    parts.head = _Heads(parts.head, fine, parts.anchor_generator.num_anchors_per_location())
    original_loss: Callable[..., dict[str, Tensor]] = parts.compute_loss

    def compute_loss(targets: list[dict[str, Tensor]], outputs: dict[str, Tensor], anchors: list[Tensor], matched: list[Tensor]) -> dict[str, Tensor]:
        truths = torch.stack([
            torch.where(indices >= 0, target["fine"][indices.clamp(min=0)], UNKNOWN)
            for target, indices in zip(targets, matched, strict=True)
        ])
        known = truths != UNKNOWN
        logits = outputs["fine_logits"][known].float()
        loss = nn.functional.cross_entropy(logits, truths[known], reduction="sum") / max(1, len(logits))
        return original_loss(targets, outputs, anchors, matched) | {"fine": weight * loss}

    parts.compute_loss = compute_loss
    return model


def remove_fine_head(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a detector without the weights of the second head."""
    return {name: tensor for name, tensor in weights.items() if not name.startswith(_PREFIX)}
