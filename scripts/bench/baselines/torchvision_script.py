"""A worker's processing, written as in torchvision's documentation, with v2 transforms and the eager model."""

from typing import Any

import numpy as np
import torch
import zxingcpp
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional
from torchvision.utils import draw_bounding_boxes

_QUALITY = 90
_LAPLACIAN = torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]])


class Script:
    """Processes an image like a worker: detection, quality, barcodes, thumbnail, drawn boxes and four augmentations.

    :param model: a torchvision detector.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model: Any = model.eval()
        self._augmentations: list[Any] = [
            v2.RandomHorizontalFlip(1.0),
            v2.RandomRotation(15),
            v2.ColorJitter(0.3, 0.3, 0.3, 0.05),
            v2.GaussianBlur(15, (0.8, 2.5)),
        ]

    @torch.inference_mode()
    def process(self, data: bytes) -> list[bytes]:
        """Process one JPEG, and return the JPEGs of all variants."""
        rgb = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
        found = self._model([rgb.float() / 255])[0]
        kept = found["boxes"][found["scores"] >= 0.3]
        grey = functional.rgb_to_grayscale(functional.resize(rgb, [480, 640])).float()
        float(grey.mean()), float(nn.functional.conv2d(grey[None], _LAPLACIAN).var())
        zxingcpp.read_barcodes(np.ascontiguousarray(rgb.permute(1, 2, 0).numpy()))
        variants = [functional.resize(rgb, [240, 320], antialias=True), draw_bounding_boxes(rgb, kept) if len(kept) else rgb]
        boxes = tv_tensors.BoundingBoxes(kept, format="XYXY", canvas_size=rgb.shape[-2:])
        variants += [augmentation(tv_tensors.Image(rgb), boxes)[0] for augmentation in self._augmentations]
        return [bytes(encode_jpeg(_plain(variant), _QUALITY).numpy()) for variant in variants]


def _plain(image: Tensor) -> Tensor:
    return image.as_subclass(Tensor).contiguous()
