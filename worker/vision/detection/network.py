"""The network of the bundled detector: a small residual backbone of plain convolutions under torchvision's SSD.

Plain 3x3 convolutions train faster on a CPU than depthwise ones, and are as fast in OpenVINO.
"""

import re
from collections import OrderedDict
from typing import Final

import worker.vision.without_compiler  # noqa: F401 -- must precede torchvision

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, SSDHead

WIDTHS: Final = (24, 48, 96, 160, 256, 256, 256)
"""Channels of each stage. Each stage halves the resolution, from 1/2 to 1/128 of the input."""
BLOCKS: Final = (0, 1, 2, 2, 1, 1, 0)
"""Residual blocks of each stage. Small objects are classified on the map at 1/16, so the stages up to it are the
deepest."""
FIRST_MAP: Final = 3
"""Index of the stage whose output is the first feature map of the detector, at 1/16."""

MEAN: Final = 0.5
STD: Final = 0.25
"""Mean and standard deviation that normalize every channel, after division by 255."""

_SECOND_BLOCK: Final = re.compile(r"backbone\.stages\.\d\.2\.")
_SCALES: Final = [0.12, 0.28, 0.48, 0.7, 0.95]


class Backbone(nn.Module):
    """Compute feature maps at 1/16, 1/32, 1/64 and 1/128 of the input's size from images ``[N, 3, S, S]``."""

    def __init__(self) -> None:
        super().__init__()
        stages = []
        channels = 3
        for width, blocks in zip(WIDTHS, BLOCKS, strict=True):
            stages.append(nn.Sequential(_conv(channels, width, 2), *(_Residual(width) for _ in range(blocks))))
            channels = width
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        """Return the maps ``[N, C, H, W]`` by index of their stage, the finest first."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for depth, stage in enumerate(self.stages):
            x = stage(x)
            if depth >= FIRST_MAP:
                maps[str(depth)] = x
        return maps


class Classifier(nn.Module):
    """The backbone with a coarse and a fine classification head on each map, for pre-training the detector's backbone.

    Each map must separate the classes on its own (deep supervision, Lee et al. 2015), as each of the detector's maps
    must.
    """

    def __init__(self, coarse: int, fine: int) -> None:
        """Build the network with random weights.

        :param coarse: number of coarse classes.
        :param fine: number of fine classes.
        """
        super().__init__()
        self.backbone = Backbone()
        self.drop = nn.Dropout(0.3)
        self.coarse = nn.ModuleList(nn.Linear(width, coarse) for width in WIDTHS[FIRST_MAP:])
        self.fine = nn.ModuleList(nn.Linear(width, fine) for width in WIDTHS[FIRST_MAP:])

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return coarse logits ``[N, coarse]`` and fine logits ``[N, fine]`` for each map.

        :param x: images ``[N, 3, S, S]``.
        """
        pooled = [self.drop(feature_map.mean((2, 3))) for feature_map in self.backbone(x).values()]
        return [(coarse(features), fine(features)) for features, coarse, fine in zip(pooled, self.coarse, self.fine, strict=True)]


def build_detector(classes: int, size: int) -> SSD:
    """Build the detector with random weights.

    :param classes: number of labels, without the background.
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


def load_weights(model: SSD, weights: dict[str, Tensor]) -> None:
    """Load a state dict into a detector of ``build_detector``.

    The second block of a stage exists since grocery 1.2. It is initialised as the identity; weights of earlier versions
    leave it so, and give the same output as before.

    :raises RuntimeError: the weights belong to another network.
    """
    second_blocks = {name: tensor for name, tensor in model.state_dict().items() if _SECOND_BLOCK.match(name)}
    model.load_state_dict(second_blocks | weights)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv(width, width, 1)
        norm = nn.BatchNorm2d(width)
        nn.init.zeros_(norm.weight)  # initialised as the identity (Goyal et al. 2017)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), norm)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


def _conv(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
    )
