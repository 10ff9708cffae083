"""The detector while it learns: a second head tells the fine classes of what the first has found.

What tells kinds of apples apart also tells apples from pears, but the detector's own labels ask only for the latter. The second head
asks the backbone for both, as the classifier did (Xie et al. 2015), and is left behind when the training ends.
"""

from collections.abc import Callable
from typing import Any, Final

import worker.vision.without_compiler  # noqa: F401 -- before torchvision

import torch
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSD, SSDScoringHead

from worker.vision.detection.network import FIRST_MAP, WIDTHS
from worker.vision.train.datasets import UNKNOWN

_HEAD: Final = "head.fine_head."


class _Heads(nn.Module):
    def __init__(self, head: Any, fine: int, anchors: list[int]) -> None:
        super().__init__()
        self.classification_head = head.classification_head
        self.regression_head = head.regression_head
        layers = [nn.Conv2d(width, count * fine, 1) for width, count in zip(WIDTHS[FIRST_MAP:], anchors, strict=True)]
        self.fine_head = SSDScoringHead(nn.ModuleList(layers), fine)

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        return {"bbox_regression": self.regression_head(maps), "cls_logits": self.classification_head(maps), "fine_logits": self.fine_head(maps)}


def learner(model: SSD, fine: int, weight: float) -> SSD:
    """Give a detector its second head, and a third loss, ``fine``.

    :param fine: number of fine classes. Targets name them by ``fine`` ``[n]``, ``UNKNOWN`` where there is none.
    :param weight: of the third loss.
    """
    parts: Any = model
    parts.head = _Heads(parts.head, fine, parts.anchor_generator.num_anchors_per_location())
    usual: Callable[..., dict[str, Tensor]] = parts.compute_loss

    def compute_loss(targets: list[dict[str, Tensor]], outputs: dict[str, Tensor], anchors: list[Tensor], matched: list[Tensor]) -> dict[str, Tensor]:
        truths = torch.stack([torch.where(one >= 0, target["fine"][one.clamp(min=0)], UNKNOWN) for target, one in zip(targets, matched, strict=True)])
        known = truths != UNKNOWN
        guesses = outputs["fine_logits"][known].float()
        loss = nn.functional.cross_entropy(guesses, truths[known], reduction="sum") / max(1, len(guesses))
        return usual(targets, outputs, anchors, matched) | {"fine": weight * loss}

    parts.compute_loss = compute_loss
    return model


def without(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave the second head's weights out."""
    return {name: one for name, one in weights.items() if not name.startswith(_HEAD)}
