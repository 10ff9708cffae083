"""The bundled detector's network: a small residual backbone of plain convolutions under torchvision's SSD.

Plain 3x3 convolutions train faster on a CPU than depthwise ones and run as fast through OpenVINO.
"""

import re
from collections import OrderedDict
from typing import Final

import worker.vision.without_compiler  # noqa: F401 -- before torchvision

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, SSDHead

WIDTHS: Final = (24, 48, 96, 160, 256, 256, 256)
"""Channels after each halving of the picture, from 1/2 to 1/128."""
BLOCKS: Final = (0, 1, 2, 2, 1, 1, 0)
"""Residual blocks after each halving. Small things are told apart from the map at 1/16, so what leads there is deepest."""
FIRST_MAP: Final = 3
"""The depth of the first feature map that the detector looks at: 1/16."""

MEAN: Final = 0.5
STD: Final = 0.25
"""Of every channel, after division by 255."""

_SECOND_BLOCK: Final = re.compile(r"backbone\.stages\.\d\.2\.")
_SCALES: Final = [0.12, 0.28, 0.48, 0.7, 0.95]


class Backbone(nn.Module):
    """A picture of shape ``[N, 3, S, S]`` to feature maps at 1/16, 1/32, 1/64 and 1/128 of its size."""

    def __init__(self) -> None:
        """Make it with random weights."""
        super().__init__()
        stages = []
        before = 3
        for width, blocks in zip(WIDTHS, BLOCKS, strict=True):
            stages.append(nn.Sequential(_conv(before, width, 2), *(_Residual(width) for _ in range(blocks))))
            before = width
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        """Give the maps, the finest first."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for depth, stage in enumerate(self.stages):
            x = stage(x)
            if depth >= FIRST_MAP:
                maps[str(depth)] = x
        return maps


class Classifier(nn.Module):
    """The backbone with a coarse and a fine head on each map: what the detector's backbone learns first.

    Each map has to tell the classes apart by itself (deep supervision, Lee et al. 2015), as each of the detector's maps will.
    """

    def __init__(self, coarse: int, fine: int) -> None:
        """Take the numbers of classes."""
        super().__init__()
        self.backbone = Backbone()
        self.drop = nn.Dropout(0.3)
        self.coarse = nn.ModuleList(nn.Linear(width, coarse) for width in WIDTHS[FIRST_MAP:])
        self.fine = nn.ModuleList(nn.Linear(width, fine) for width in WIDTHS[FIRST_MAP:])

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Give coarse and fine logits of pictures ``[N, 3, S, S]``, one pair for each map."""
        pooled = [self.drop(one.mean((2, 3))) for one in self.backbone(x).values()]
        return [(coarse(one), fine(one)) for one, coarse, fine in zip(pooled, self.coarse, self.fine, strict=True)]


def detector(classes: int, size: int) -> SSD:
    """Build the detector.

    :param classes: number of labels, the background not counted.
    :param size: side of the square input in pixels.
    """
    anchors = DefaultBoxGenerator([[2], [2], [2], [2]], scales=_SCALES)
    head = SSDHead(list(WIDTHS[FIRST_MAP:]), anchors.num_anchors_per_location(), classes + 1)
    return SSD(
        Backbone(),
        anchors,
        (size, size),
        classes + 1,
        head=head,
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
        score_thresh=0.02,
        nms_thresh=0.45,
        detections_per_img=100,
        topk_candidates=200,
    )


def fill(model: SSD, weights: dict[str, Tensor]) -> None:
    """Fill a detector with weights.

    The second block of a stage came with grocery 1.2. It begins as the identity and stays it where the weights are of before: they give what they gave.

    :raises RuntimeError: the weights are of another network.
    """
    since = {name: one for name, one in model.state_dict().items() if _SECOND_BLOCK.match(name)}
    model.load_state_dict(since | weights)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv(width, width, 1)
        norm = nn.BatchNorm2d(width)
        nn.init.zeros_(norm.weight)  # begins as the identity (Goyal et al. 2017)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), norm)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


def _conv(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )
