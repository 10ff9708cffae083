"""Detection with the bundled model: through OpenVINO on a CPU, through torch where it is absent.

The network's convolutions run in the engine; anchors, soft-max and suppression are torchvision's own code on its outputs, so
both engines give what the plain torchvision model gives (a test compares).
"""

import hashlib
import json
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from worker.vision.imaging import Rgb
from worker.vision.network import detector

BUNDLED: Final = Path(__file__).parent / "models"
BATCH: Final = 8
"""Pictures at once: 4 to 8 are fastest on a CPU, 16 are no better."""


@dataclass(frozen=True, slots=True)
class Card:
    """What ``grocery.json`` says of the weights beside it."""

    name: str
    version: str
    labels: list[str]
    size: int
    threshold: float
    weights_sha256: str


class Detector:
    """Finds things in pictures. Not for several threads at once."""

    def __init__(self, card: Card, model: nn.Module, *, threads: int) -> None:
        """Compile the network; see ``load``."""
        self._card = card
        self._model: Any = model.eval()
        self._run = _engine(_Heads(model), card.size, threads)

    @property
    def info(self) -> dict[str, str]:
        """Name, version and digest of the weights: kept with every result."""
        return {"name": self._card.name, "version": self._card.version, "weights_sha256": self._card.weights_sha256}

    def predict(self, pictures: list[Rgb]) -> list[list[dict[str, Any]]]:
        """Look at pictures ``[H, W, 3]`` of any size.

        :returns: for each ``{"label", "score", "box"}``, the best first; boxes are x1, y1, x2, y2 in its own pixels.
        """
        found: list[list[dict[str, Any]]] = []
        for begin in range(0, len(pictures), BATCH):
            found += self._predict(pictures[begin : begin + BATCH])
        return found

    def _predict(self, pictures: list[Rgb]) -> list[list[dict[str, Any]]]:
        size = self._card.size
        # Reduced before it becomes float: a float picture of 1280x960 costs nine times as much to resize.
        small = np.stack([cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA) for rgb in pictures])
        logits, offsets, shapes = self._run(small)
        images = ImageList(torch.zeros(len(pictures), 3, size, size), [(size, size)] * len(pictures))
        maps = [torch.zeros(1, 1, *shape) for shape in shapes]
        with torch.inference_mode():
            anchors = self._model.anchor_generator(images, maps)
            heads = {"cls_logits": logits, "bbox_regression": offsets}
            raw = self._model.postprocess_detections(heads, anchors, images.image_sizes)
        return [self._named(one, rgb) for one, rgb in zip(raw, pictures, strict=True)]

    def _named(self, raw: dict[str, Tensor], rgb: Rgb) -> list[dict[str, Any]]:
        height, width = rgb.shape[:2]
        scale = np.array([width, height, width, height]) / self._card.size
        named = []
        for box, score, label in zip(raw["boxes"].numpy(), raw["scores"].tolist(), raw["labels"].tolist(), strict=True):
            if score >= self._card.threshold:
                corners = [round(float(value), 1) for value in box * scale]
                named.append({"label": self._card.labels[label - 1], "score": round(score, 4), "box": corners})
        return named


def load(folder: Path = BUNDLED, *, threads: int = 1) -> Detector:
    """Load ``grocery.safetensors`` and its card.

    :param threads: threads that the model may use in this process.
    """
    from safetensors.torch import load as load_tensors  # noqa: PLC0415 -- only where weights are read

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    data = (folder / "grocery.safetensors").read_bytes()
    said = json.loads((folder / "grocery.json").read_text())
    digest = hashlib.sha256(data).hexdigest()
    card = Card(said["name"], said["version"], said["labels"], said["size"], said["threshold"], digest)
    model = detector(len(card.labels), card.size)
    model.load_state_dict({name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in load_tensors(data).items()})
    return Detector(card, model, threads=threads)


class _Heads(nn.Module):
    """The network from uint8 pictures ``[N, S, S, 3]`` to class logits, box offsets and the sizes of the feature maps."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = model.backbone
        self.head: Any = model.head

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        x = (pictures.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
        maps: OrderedDict[str, Tensor] = self.backbone(x)
        heads = self.head(list(maps.values()))
        return heads["cls_logits"], heads["bbox_regression"]

    def shapes(self, size: int) -> list[tuple[int, int]]:
        """Sizes of the feature maps for a square input."""
        with torch.inference_mode():
            return [tuple(one.shape[-2:]) for one in self.backbone(torch.zeros(1, 3, size, size)).values()]


class _Engine:
    """Runs the heads: ``(logits, offsets, shapes)`` of pictures ``[N, S, S, 3]``."""

    def __init__(self, heads: _Heads, size: int) -> None:
        self._heads = heads.eval()
        self._shapes = heads.shapes(size)

    def __call__(self, pictures: NDArray[np.uint8]) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        with torch.inference_mode():
            return (*self._heads(torch.from_numpy(pictures)), self._shapes)


class _OpenVino(_Engine):
    """The same through OpenVINO, which is two to three times as fast on a CPU (f32, agrees to 1e-5)."""

    def __init__(self, heads: _Heads, size: int, threads: int) -> None:
        super().__init__(heads, size)
        import openvino  # noqa: PLC0415 -- on first use: this is its one place

        example = torch.zeros(1, size, size, 3, dtype=torch.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # OpenVINO's own way through torch.jit
            shape = openvino.PartialShape([-1, size, size, 3])
            model = openvino.convert_model(heads.eval(), example_input=example, input=[shape])
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
        self._compiled = openvino.Core().compile_model(model, "CPU", settings)

    def __call__(self, pictures: NDArray[np.uint8]) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        out = self._compiled(pictures)
        return torch.from_numpy(out[0].copy()), torch.from_numpy(out[1].copy()), self._shapes


def _engine(heads: _Heads, size: int, threads: int) -> _Engine:
    try:
        return _OpenVino(heads, size, threads)
    except ImportError:
        return _Engine(heads, size)
