"""Compute a detector's network with a runtime: OpenVINO on a CPU, and torch on a GPU or on a CPU without OpenVINO.

``install`` replaces three parts of a torchvision detector: its transform (which resizes the images), its backbone and,
if it has one, its dense head. For an SSD, ``install`` also replaces the post-processing with the module ``nms``. All
other parts (anchors, proposals, non-maximum suppression) remain torchvision's code, so that every runtime gives the
same results as torchvision alone.
"""

import math
import sys
import warnings
from collections import OrderedDict
from functools import cache, partial
from typing import Any, Literal

import worker.vision.without_compiler  # noqa: F401 -- must be imported before torchvision

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


def select_device(device: str | None) -> str:
    """Return the requested device. If ``device`` is None, return ``cuda`` if there is a usable GPU, or else ``cpu``.

    :raises ModelUnusable: ``cuda`` is requested, but there is no usable GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelUnusable("The device is cuda, but torch finds no GPU that it can use. Set the device to cpu, or leave it unset.")
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def supports_half(device: str) -> bool:
    """Return whether half precision is faster than full precision on the device.

    Half precision is bfloat16 on a CPU and float16 on a GPU.
    """
    if device != "cpu":
        return True
    try:
        core = _openvino_core()
    except ImportError:
        return False
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _openvino_core() -> Any:
    """Return OpenVINO's core, which is created once for the process and never destroyed.

    The core is never destroyed because that could crash the process. When a core is created, its CPU plugin installs an
    alternate signal stack (sigaltstack(2)) in the calling thread. When the core is destroyed, the plugin unmaps this
    stack and restores the previous one. If two cores are destroyed in the order of their creation, the thread is left
    with an unmapped stack, and the next signal kills the process.

    :raises ImportError: OpenVINO is not installed.
    """
    return _import_openvino().Core()


def _import_openvino() -> Any:
    """Import OpenVINO on first use, because some machines do not have it. No other module imports it.

    By default, OpenVINO sends several messages to Google Analytics for each model that it converts, each from a new
    process, and stores an identifier in the home folder. It sends nothing if ``openvino_telemetry`` cannot be imported.

    :raises ImportError: OpenVINO is not installed.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # None makes an import fail; see the import system in Python's reference
    import openvino

    return openvino


def install(model: nn.Module, *, device: str, precision: Precision, threads: int) -> Precision:
    """Install a runtime into a torchvision detector, in place.

    :param device: ``cpu`` or ``cuda``.
    :param precision: the requested precision.
    :param threads: number of threads that OpenVINO may use.
    :returns: the precision that is used. It is ``full`` if ``half`` was requested but half precision is not faster on
        the device.
    """
    if precision == "half" and not supports_half(device):
        precision = "full"
    parts: Any = model
    network = _Network(parts)
    runtime: _TorchRuntime | _OpenVinoRuntime
    if device == "cpu":
        try:
            runtime = _OpenVinoRuntime(network, parts.transform.fixed_size, precision, threads)
        except ImportError:
            runtime = _TorchRuntime(network, device, precision)
    else:
        model.to(device)
        runtime = _TorchRuntime(network, device, precision)
    parts.transform = _Transform(parts.transform)
    parts.backbone = backbone = _Backbone(runtime, network.head_names)
    if network.head_names:
        parts.head = _Head(backbone)
    if isinstance(model, SSD):
        parts.postprocess_detections = partial(nms.postprocess_detections, parts)
    return precision


class _Transform(nn.Module):
    """Does what torchvision's ``GeneralizedRCNNTransform`` does, but with OpenCV.

    The resized images have the same sizes as torchvision's. After bilinear interpolation, their values differ from
    torchvision's by at most 1e-3 of an intensity step. Resizing a float image of 1280x960 pixels takes nine times as
    long as resizing the same image as bytes. So an image is first reduced as bytes: while a side is more than twice as
    long as its target length, the side is halved by area averaging. Bilinear interpolation alone would skip most of the
    pixels of such a side, because it reads only two neighbouring pixels.
    """

    def __init__(self, original: Any) -> None:
        super().__init__()
        self._original = original
        self._buffer = np.empty((0, 0, 0, 3), np.float32)

    def forward(self, images: list[Tensor], _targets: None = None) -> tuple[ImageList, None]:
        """Resize images ``[3, H, W]`` into a batch ``[N, 3, H, W]``, float32 with values from 0 to 255.

        The images are uint8, and they are views of contiguous arrays ``[H, W, 3]``.
        """
        resized = [self._resize(image.permute(1, 2, 0).numpy()) for image in images]
        sizes = [(rgb.shape[0], rgb.shape[1]) for rgb in resized]
        stride = 1 if self._original.fixed_size else self._original.size_divisible
        height, width = (math.ceil(max(size[axis] for size in sizes) / stride) * stride for axis in (0, 1))
        batch = self._allocate(len(resized), height, width)
        # Torchvision pads with 0 after normalization. Here, images are padded before normalization, which turns this
        # value into 0.
        padding = np.multiply(self._original.image_mean, 255, dtype=np.float32)
        for row, rgb, (high, wide) in zip(batch, resized, sizes, strict=True):
            row[:high, :wide] = rgb
            row[high:], row[:high, wide:] = padding, padding
        return ImageList(torch.from_numpy(batch).permute(0, 3, 1, 2), sizes), None

    def postprocess(self, outputs: list[dict[str, Tensor]], *sizes: Any) -> Any:
        """Scale the detected boxes to pixels of the original images, and remove masks and key points from the outputs.

        Masks and key points are removed because the service does not use them, and because a hundred masks for an image
        of 50 megapixels would need 19 GB of memory.
        """
        return self._original.postprocess([{name: output[name] for name in ("boxes", "scores", "labels")} for output in outputs], *sizes)

    def _allocate(self, count: int, height: int, width: int) -> NDArray[np.float32]:
        """Return an uninitialised array ``[count, height, width, 3]``.

        If the size is fixed, a buffer is reused (1.8 MB for an image of 384 x 384 pixels), because allocating new
        memory pages takes longer than copying the image into them. OpenVINO can refer to the buffer until OpenVINO is
        called the next time, so a call of the detector must not begin before the previous call has returned.
        """
        if not self._original.fixed_size:
            return np.empty((count, height, width, 3), np.float32)
        if len(self._buffer) < count:
            self._buffer = np.empty((count, height, width, 3), np.float32)
        return self._buffer[:count]

    def _resize(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        height, width = rgb.shape[:2]
        if self._original.fixed_size:
            size = self._original.fixed_size
        else:
            scale = min(self._original.min_size[-1] / min(height, width), self._original.max_size / max(height, width))
            size = (max(1, int(width * scale)), max(1, int(height * scale)))
        reduced = (_halve(width, size[0]), _halve(height, size[1]))
        if reduced != (width, height):
            rgb = cv2.resize(rgb, reduced, interpolation=cv2.INTER_AREA)
        resized: NDArray[np.float32] = cv2.resize(rgb.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        return resized


class _Network(nn.Module):
    """The convolutional part of a detector: it computes feature maps and, if there is a dense head, the head's outputs.

    If there is a dense head, the other parts of the detector need only the sizes of the feature maps, so only one
    channel of each map is returned.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, getattr(model, "head", None)
        self.head_names: list[str] = []
        """The names of the dense head's outputs, in order; empty if there is no dense head (two-stage detectors)."""
        self.map_names: list[str] = []
        for name, values in (("mean", model.transform.image_mean), ("std", model.transform.image_std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None] * 255)
        with torch.inference_mode():
            size = model.transform.fixed_size or (64, 64)
            features = _as_dict(self.backbone(torch.zeros(1, 3, *size)))
            self.map_names = list(features)
            if self.head is not None:
                self.head_names = list(self.head(list(features.values())))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the network on images ``[N, H, W, 3]`` with values from 0 to 255.

        :returns: the feature maps in the order of ``map_names``, then the head's outputs in the order of
            ``head_names``.
        """
        x = (images.permute(0, 3, 1, 2) - self.mean) / self.std
        features = _as_dict(self.backbone(x))
        if self.head is None:
            return tuple(features.values())
        outputs = self.head(list(features.values()))
        return (*(feature_map[:, :1] for feature_map in features.values()), *(outputs[name] for name in self.head_names))


class _Backbone(nn.Module):
    """Replaces a model's backbone, and keeps the outputs of the dense head until ``_Head`` returns them."""

    def __init__(self, runtime: "_TorchRuntime | _OpenVinoRuntime", head_names: list[str]) -> None:
        super().__init__()
        self._runtime, self._head_names = runtime, head_names
        self.head_outputs: dict[str, Tensor] = {}

    def forward(self, batch: Tensor) -> "OrderedDict[str, Tensor]":
        outputs = self._runtime(batch.permute(0, 2, 3, 1))
        map_count = len(outputs) - len(self._head_names)
        self.head_outputs = dict(zip(self._head_names, outputs[map_count:], strict=True))
        return OrderedDict(zip(self._runtime.map_names, outputs[:map_count], strict=True))


class _Head(nn.Module):
    def __init__(self, backbone: _Backbone) -> None:
        super().__init__()
        self._backbone = [backbone]  # the list prevents torch from registering the backbone as a submodule

    def forward(self, _features: list[Tensor]) -> dict[str, Tensor]:
        outputs, self._backbone[0].head_outputs = self._backbone[0].head_outputs, {}
        return outputs


class _TorchRuntime:
    """Runs the network with torch, in the memory format channels-last, and in half precision if requested."""

    def __init__(self, network: _Network, device: str, precision: Precision) -> None:
        self.map_names = network.map_names
        self._device = device
        self._network = network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's type annotations lack this overload
        if precision == "half":
            self._network.half()
        elif device == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # TF32 would reduce the precision of float32 convolutions

    def __call__(self, images: Tensor) -> list[Tensor]:
        return [output.float() for output in self._network(images.to(self._device, self._network.mean.dtype))]


class _OpenVinoRuntime:
    """Runs the network with OpenVINO.

    On a CPU, OpenVINO is two to three times as fast as torch in float32, with results that agree to 1e-5. In bfloat16,
    it is even faster.
    """

    def __init__(self, network: _Network, fixed_size: tuple[int, int] | None, precision: Precision, threads: int) -> None:
        openvino = _import_openvino()
        self.map_names = network.map_names
        width, height = fixed_size or (-1, -1)
        example = torch.zeros(2, *((height, width) if fixed_size else (128, 192)), 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the conversion uses torch.jit, for which torch emits warnings
            shape = openvino.PartialShape([-1, height, width, 3])
            # The network is traced here, and not by OpenVINO, because OpenVINO would request a check of the trace. For
            # such a check, torch imports its compiler and computes everything twice.
            traced = torch.jit.trace(network.eval(), example, strict=False, check_trace=False)  # type: ignore[no-untyped-call]  # torch has no type annotations for it
            model = openvino.convert_model(traced, input=[shape])
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "half" else "f32",
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = _openvino_core().compile_model(model, "CPU", settings)

    def __call__(self, images: Tensor) -> list[Tensor]:
        outputs = self._compiled(images.numpy())
        return [torch.from_numpy(outputs[index].copy()) for index in range(len(self._compiled.outputs))]


def _halve(side: int, target: int) -> int:
    while side > 2 * target:
        side = (side + 1) // 2
    return side


def _as_dict(features: "Tensor | dict[str, Tensor]") -> dict[str, Tensor]:
    return {"0": features} if isinstance(features, Tensor) else features
