"""What computes a network: OpenVINO on a CPU, torch on a GPU and where OpenVINO is absent.

An engine takes the place of three parts inside a torchvision detector: its transform, its backbone and, where it has
one, its dense head; an SSD's last step is done by ``suppress``. What remains (anchors, proposals, suppression) is torchvision's
own code, so that every engine answers what the plain call answers.
"""

import math
import warnings
from collections import OrderedDict
from functools import cache, partial
from typing import Any, Literal

import worker.vision.without_compiler  # noqa: F401 -- before torchvision

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD

from worker.vision.detection import nms
from worker.vision.detection.model_registry import ModelUnusable

Precision = Literal["full", "half"]


def chosen(device: str | None) -> str:
    """Give the device to compute on: what is asked for, else a GPU where there is one.

    :raises ModelUnusable: a GPU is asked for where there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelUnusable("There is no GPU that torch can use here. Leave the device open, or name cpu.")
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def has_half(device: str) -> bool:
    """Say whether a device computes in half precision (bfloat16 on a CPU, float16 on a GPU) faster than in full."""
    if device != "cpu":
        return True
    try:
        core = _openvino_core()
    except ImportError:
        return False
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _openvino_core() -> Any:
    """Make OpenVINO's core once and keep it.

    Its CPU plugin gives the thread that makes it a stack for signals (sigaltstack(2)), and when it goes, unmaps that and puts back the one
    before. With two that go in the order they came the thread is left with one that is gone, and the next signal ends the process.

    :raises ImportError: OpenVINO is not there.
    """
    import openvino  # on first use: this module is its one place

    return openvino.Core()


def install(model: nn.Module, *, device: str, precision: Precision, threads: int) -> Precision:
    """Put an engine into a torchvision detector, in place.

    :returns: the precision in which it computes: ``full`` where the device has no other.
    """
    if precision == "half" and not has_half(device):
        precision = "full"
    parts: Any = model
    network = _Network(parts)
    run: _TorchRun | _OpenVinoRun
    if device == "cpu":
        try:
            run = _OpenVinoRun(network, parts.transform.fixed_size, precision, threads)
        except ImportError:
            run = _TorchRun(network, device, precision)
    else:
        model.to(device)
        run = _TorchRun(network, device, precision)
    parts.transform = _Fit(parts.transform)
    parts.backbone = stage = _Backbone(run, network.heads)
    if network.heads:
        parts.head = _Head(stage)
    if isinstance(model, SSD):
        parts.postprocess_detections = partial(nms.postprocess, parts)
    return precision


class _Fit(nn.Module):
    """Torchvision's ``GeneralizedRCNNTransform`` by OpenCV: the same sizes, the same bilinear values to 1e-3 of a step.

    A float picture of 1280x960 costs nine times as much to resize as bytes do. So a side that is more than twice as long as it
    will be is first halved by area, as often as that is so, in bytes: two neighbours alone would miss most of its pixels anyway.
    """

    def __init__(self, like: Any) -> None:
        super().__init__()
        self._like = like
        self._kept = np.empty((0, 0, 0, 3), np.float32)

    def forward(self, images: list[Tensor], _targets: None = None) -> tuple[ImageList, None]:
        """Bring pictures ``[3, H, W]`` (uint8, rows of RGB in memory) to one size; the batch is float, from 0 to 255."""
        fitted = [self._resized(image.permute(1, 2, 0).numpy()) for image in images]
        sizes = [(one.shape[0], one.shape[1]) for one in fitted]
        stride = 1 if self._like.fixed_size else self._like.size_divisible
        high, wide = (math.ceil(max(size[axis] for size in sizes) / stride) * stride for axis in (0, 1))
        batch = self._room(len(fitted), high, wide)
        around = np.multiply(self._like.image_mean, 255, dtype=np.float32)  # 0 when it is normalised: torchvision pads after that
        for row, one, (height, width) in zip(batch, fitted, sizes, strict=True):
            row[:height, :width] = one
            row[height:], row[:height, width:] = around, around
        return ImageList(torch.from_numpy(batch).permute(0, 3, 1, 2), sizes), None

    def postprocess(self, found: list[dict[str, Tensor]], *sizes: Any) -> Any:
        """Bring boxes back to the pictures' own pixels. Masks and key points, which nobody asks for here, are left out.

        Of a picture of 50 megapixels a hundred masks would take 19 GB.
        """
        return self._like.postprocess([{name: one[name] for name in ("boxes", "scores", "labels")} for one in found], *sizes)

    def _room(self, count: int, high: int, wide: int) -> NDArray[np.float32]:
        """Give ``[count, high, wide, 3]`` to be filled. Where all are of one size it is kept, 1.8 MB a picture at 384 x 384: its pages cost more than the copy.

        OpenVINO may hold on to it until the next call, so none may begin before the last has answered.
        """
        if not self._like.fixed_size:
            return np.empty((count, high, wide, 3), np.float32)
        if len(self._kept) < count:
            self._kept = np.empty((count, high, wide, 3), np.float32)
        return self._kept[:count]

    def _resized(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        high, wide = rgb.shape[:2]
        if self._like.fixed_size:
            size = self._like.fixed_size
        else:
            scale = min(self._like.min_size[-1] / min(high, wide), self._like.max_size / max(high, wide))
            size = (max(1, int(wide * scale)), max(1, int(high * scale)))
        reduced = (_halved(wide, size[0]), _halved(high, size[1]))
        if reduced != (wide, high):
            rgb = cv2.resize(rgb, reduced, interpolation=cv2.INTER_AREA)
        fitted: NDArray[np.float32] = cv2.resize(rgb.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        return fitted


class _Network(nn.Module):
    """The part that is all convolutions: pictures to feature maps, and the dense head's outputs where there is one.

    With a head only the maps' sizes are needed by what follows: one channel of each is given.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, getattr(model, "head", None)
        self.heads: list[str] = []
        """Names of the dense head's outputs, in their order; empty where the model has none (two stages)."""
        self.maps: list[str] = []
        for name, values in (("mean", model.transform.image_mean), ("std", model.transform.image_std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None] * 255)
        with torch.inference_mode():
            size = model.transform.fixed_size or (64, 64)
            features = _as_maps(self.backbone(torch.zeros(1, 3, *size)))
            self.maps = list(features)
            if self.head is not None:
                self.heads = list(self.head(list(features.values())))

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Compute pictures ``[N, H, W, 3]``."""
        x = (pictures.permute(0, 3, 1, 2) - self.mean) / self.std
        features = _as_maps(self.backbone(x))
        if self.head is None:
            return tuple(features.values())
        found = self.head(list(features.values()))
        return (*(one[:, :1] for one in features.values()), *(found[name] for name in self.heads))


class _Backbone(nn.Module):
    """Stands where a model has its backbone; keeps what was computed of the heads for ``_Head``."""

    def __init__(self, run: "_TorchRun | _OpenVinoRun", heads: list[str]) -> None:
        super().__init__()
        self._run, self._names = run, heads
        self.found: dict[str, Tensor] = {}

    def forward(self, batch: Tensor) -> "OrderedDict[str, Tensor]":
        outputs = self._run(batch.permute(0, 2, 3, 1))
        maps = len(outputs) - len(self._names)
        self.found = dict(zip(self._names, outputs[maps:], strict=True))
        return OrderedDict(zip(self._run.maps, outputs[:maps], strict=True))


class _Head(nn.Module):
    def __init__(self, backbone: _Backbone) -> None:
        super().__init__()
        self._backbone = [backbone]  # in a list: it is no part of this module

    def forward(self, _features: list[Tensor]) -> dict[str, Tensor]:
        found, self._backbone[0].found = self._backbone[0].found, {}
        return found


class _TorchRun:
    """Torch itself. On a GPU with channels last, and half precision where it is asked for."""

    def __init__(self, network: _Network, device: str, precision: Precision) -> None:
        self.maps = network.maps
        self._device = device
        self._network = network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if precision == "half":
            self._network.half()
        elif device == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # else full precision would not be full

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        return [one.float() for one in self._network(pictures.to(self._device, self._network.mean.dtype))]


class _OpenVinoRun:
    """OpenVINO: two to three times as fast as torch on a CPU in f32, agreeing to 1e-5; more in bf16."""

    def __init__(self, network: _Network, fixed_size: tuple[int, int] | None, precision: Precision, threads: int) -> None:
        import openvino

        self.maps = network.maps
        wide, high = fixed_size or (-1, -1)
        example = torch.zeros(2, *((high, wide) if fixed_size else (128, 192)), 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # OpenVINO's own way through torch.jit, and torch's view of it
            shape = openvino.PartialShape([-1, high, wide, 3])
            # OpenVINO would have the trace compared, and for that torch imports its compiler and computes twice.
            traced = torch.jit.trace(network.eval(), example, strict=False, check_trace=False)  # type: ignore[no-untyped-call]  # torch's own gap
            model = openvino.convert_model(traced, input=[shape])
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "half" else "f32",
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = _openvino_core().compile_model(model, "CPU", settings)

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        found = self._compiled(pictures.numpy())
        return [torch.from_numpy(found[at].copy()) for at in range(len(self._compiled.outputs))]


def _halved(side: int, target: int) -> int:
    while side > 2 * target:
        side = (side + 1) // 2
    return side


def _as_maps(found: "Tensor | dict[str, Tensor]") -> dict[str, Tensor]:
    return {"0": found} if isinstance(found, Tensor) else found
