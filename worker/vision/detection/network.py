"""The network of the bundled detector: torchvision's SSD with a small residual backbone that uses plain convolutions.

On a CPU, training with plain 3x3 convolutions is faster than with depthwise ones. In OpenVINO, both are equally fast.
"""

import re
from collections import OrderedDict
from typing import Final

import worker.vision.without_compiler  # noqa: F401 -- must be imported before torchvision

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, SSDHead

WIDTHS: Final = (24, 48, 96, 160, 256, 256, 256)
"""Number of channels in each stage. Each stage halves the resolution: the first stage has 1/2 and the last stage has
1/128 of the input's resolution."""
BLOCKS: Final = (0, 1, 2, 2, 1, 1, 0)
"""Number of residual blocks in each stage. Small objects are classified on the feature map at 1/16 of the input's
resolution, so the two stages up to this map have the most blocks."""
FIRST_MAP: Final = 3
"""Index of the stage whose output is the detector's first feature map, at 1/16 of the input's resolution."""

MEAN: Final = 0.5
STD: Final = 0.25
"""Mean and standard deviation with which every channel is normalized after the values are divided by 255."""

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
        """Return the feature maps ``[N, C, H, W]``, keyed by the index of their stage, the finest map first."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for depth, stage in enumerate(self.stages):
            x = stage(x)
            if depth >= FIRST_MAP:
                maps[str(depth)] = x
        return maps


class Classifier(nn.Module):
    """A classifier for pre-training the backbone, with a coarse and a fine classification head on each feature map.

    Each feature map must separate the classes on its own (deep supervision, Lee et al. 2015), because the detector
    classifies objects on each map separately.
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
        """Return the coarse logits ``[N, coarse]`` and the fine logits ``[N, fine]`` for each feature map.

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
    """Load a state dict into a detector that ``build_detector`` built.

    Since version 1.2 of ``grocery``, some stages have a second residual block. Weights of earlier versions do not
    contain these blocks. When such weights are loaded, the second blocks keep their initial weights, with which they
    return their input unchanged. So the detector gives the same output as the earlier version.

    :raises RuntimeError: the weights belong to another network.
    """
    second_blocks = {name: tensor for name, tensor in model.state_dict().items() if _SECOND_BLOCK.match(name)}
    model.load_state_dict(second_blocks | weights)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv(width, width, 1)
        norm = nn.BatchNorm2d(width)
        nn.init.zeros_(norm.weight)  # so that the block is initialised as the identity (Goyal et al. 2017)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), norm)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


def _conv(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
    )
