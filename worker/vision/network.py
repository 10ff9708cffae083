"""The bundled detector's network: a plain-convolution backbone under torchvision's SSD.

Plain 3x3 convolutions train faster on a CPU than depthwise ones and run as fast through OpenVINO.
"""

from collections import OrderedDict
from typing import Final

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, SSDHead

WIDTHS: Final = (24, 48, 96, 160, 224, 256, 256)
"""Channels after each halving of the picture, from 1/2 to 1/128."""

_SCALES: Final = [0.12, 0.28, 0.48, 0.7, 0.95]


class Backbone(nn.Module):
    """A picture of shape ``[N, 3, S, S]`` to feature maps at 1/16, 1/32, 1/64 and 1/128 of its size."""

    def __init__(self) -> None:
        """Make it with random weights."""
        super().__init__()
        stages = []
        before = 3
        for depth, width in enumerate(WIDTHS):
            layers = [_conv(before, width, 2)]
            if 1 <= depth <= 4:
                layers.append(_conv(width, width, 1))
            stages.append(nn.Sequential(*layers))
            before = width
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        """Give the maps, the finest first."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for depth, stage in enumerate(self.stages):
            x = stage(x)
            if depth >= 3:
                maps[str(depth)] = x
        return maps


class Classifier(nn.Module):
    """The backbone with a coarse and a fine head: what the detector's backbone learns first."""

    def __init__(self, coarse: int, fine: int) -> None:
        """Take the numbers of classes."""
        super().__init__()
        self.backbone = Backbone()
        self.drop = nn.Dropout(0.3)
        self.coarse = nn.Linear(WIDTHS[3] + WIDTHS[4], coarse)
        self.fine = nn.Linear(WIDTHS[3] + WIDTHS[4], fine)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give coarse and fine logits of pictures ``[N, 3, S, S]``."""
        maps = self.backbone(x)
        pooled = torch.cat([maps["3"].mean((2, 3)), maps["4"].mean((2, 3))], 1)
        pooled = self.drop(pooled)
        return self.coarse(pooled), self.fine(pooled)


def detector(classes: int, size: int) -> SSD:
    """Build the detector.

    :param classes: number of labels, the background not counted.
    :param size: side of the square input in pixels.
    """
    anchors = DefaultBoxGenerator([[2], [2], [2], [2]], scales=_SCALES)
    backbone = Backbone()
    head = SSDHead(list(WIDTHS[3:]), anchors.num_anchors_per_location(), classes + 1)
    return SSD(
        backbone,
        anchors,
        (size, size),
        classes + 1,
        head=head,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.25, 0.25, 0.25],
        score_thresh=0.05,
        nms_thresh=0.45,
        detections_per_img=100,
        topk_candidates=200,
    )


def _conv(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )
