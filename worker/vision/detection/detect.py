"""Detect objects in images with a torchvision detector, using the fastest runtime that this machine has."""

from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from worker.vision.detection import model_registry, runtimes
from worker.vision.detection.model_registry import BUNDLED, ModelCard
from worker.vision.imaging import Rgb, limit_threads

CPU_BATCH_SIZE: Final = 8
"""Number of images in one forward pass on a CPU. 4 to 8 images are fastest, and 16 are not faster."""
CUDA_BATCH_SIZE: Final = 64
MAX_HALF_PRECISION_LOSS: Final = 0.005
"""``precision="auto"`` chooses half precision if it reduces the model's mAP50 (0 to 1) by at most this value."""


class Detector:
    """An object detector. Use ``load`` to create an instance. An instance is not thread-safe."""

    def __init__(
        self, model: nn.Module, card: ModelCard, *, device: str, precision: runtimes.Precision, threads: int,
        fallback: "Callable[[], Detector] | None" = None,
    ) -> None:  # fmt: skip
        """Replace parts of the model, in place, so that a runtime computes them; see ``runtimes.install``.

        :param device: ``cpu`` or ``cuda``.
        :param threads: number of threads that the runtime may use.
        :param fallback: function that creates the detector for images for which the memory of this device is too small.
        """
        self._card, self._model = card, model.eval()
        self._fallback: Detector | Callable[[], Detector] | None = fallback
        self.device = device
        self.batch_size = CPU_BATCH_SIZE if device == "cpu" else CUDA_BATCH_SIZE
        """Number of images in one forward pass. It is reduced permanently if the device runs out of memory."""
        self.precision = runtimes.install(model, device=device, precision=precision, threads=threads)

    @property
    def info(self) -> dict[str, str]:
        """The ``name``, ``version`` and ``weights_sha256`` of the model, which are stored with every result."""
        return self._card.info

    def predict(self, images: list[Rgb], *, threshold: float | None = None) -> list[list[dict[str, Any]]]:
        """Detect objects in images of any size.

        :param images: each is ``[H, W, 3]``, uint8, RGB.
        :param threshold: minimum score of a detection, from 0 to 1. The default is the threshold in the model card.
        :returns: for each image, its detections ``{"label", "score", "box"}``, the highest score first. ``box`` is x1,
            y1, x2, y2 in pixels of the image.
        :raises torch.OutOfMemoryError: the memory of the device is too small for one image, and there is no fallback.
        """
        min_score = self._card.threshold if threshold is None else threshold
        results: list[list[dict[str, Any]]] = []
        while len(results) < len(images):
            batch = images[len(results) : len(results) + self.batch_size]
            try:
                outputs = self._forward(batch)
            except torch.OutOfMemoryError:
                if len(batch) > 1:
                    # The reduction is permanent because the next batch of the same size would not fit either.
                    self.batch_size = len(batch) // 2
                    continue
                if self._fallback is None:
                    raise
                if not isinstance(self._fallback, Detector):
                    self._fallback = self._fallback()
                results += self._fallback.predict(batch, threshold=threshold)
                continue
            results += [self._detections(output, rgb, min_score) for output, rgb in zip(outputs, batch, strict=True)]
        return results

    def _forward(self, images: list[Rgb]) -> list[dict[str, Tensor]]:
        with torch.inference_mode():
            views = [torch.from_numpy(np.require(rgb, requirements=["C", "W"])).permute(2, 0, 1) for rgb in images]
            return list(self._model(views))

    def _detections(self, output: dict[str, Tensor], rgb: Rgb, min_score: float) -> list[dict[str, Any]]:
        height, width = rgb.shape[:2]
        boxes = output["boxes"].cpu().numpy().clip(0, [width, height, width, height])
        detections = []
        for box, score, label in zip(boxes, output["scores"].tolist(), output["labels"].tolist(), strict=True):
            if score >= min_score:
                rounded = [round(float(coordinate), 1) for coordinate in box]
                detections.append({"label": self._card.labels[label], "score": round(score, 4), "box": rounded})
        return detections


def load(
    source: str = BUNDLED, *, threads: int = 1, device: str | None = None, precision: Literal["auto", "full", "half"] = "auto"
) -> Detector:
    """Load a model, and run it once so that its runtime is compiled and its memory is allocated.

    :param source: see ``model_registry.load``.
    :param threads: number of threads that torch, OpenCV and the runtime may each use in this process.
    :param device: ``cpu`` or ``cuda``; by default, a GPU is used if there is one.
    :param precision: with ``auto``, half precision is used if the device supports it and the ``half_loss`` in the model
        card is at most ``MAX_HALF_PRECISION_LOSS``.
    :raises ModelUnusable: the model cannot be loaded (see ``model_registry.load``), or ``cuda`` was requested and there
        is no usable GPU.
    """
    selected = runtimes.select_device(device)
    torch.set_num_threads(threads)
    limit_threads(threads)
    model, card = model_registry.load(source)
    if precision == "auto":
        is_harmless = card.half_loss is not None and card.half_loss <= MAX_HALF_PRECISION_LOSS
        precision = "half" if is_harmless and runtimes.supports_half(selected) else "full"

    def load_on_cpu() -> Detector:
        return load(source, threads=threads, device="cpu", precision="full")

    fallback = load_on_cpu if selected != "cpu" else None
    detector = Detector(model, card, device=selected, precision=precision, threads=threads, fallback=fallback)
    detector.predict([np.zeros((64, 64, 3), np.uint8)])  # this first call compiles the runtime and allocates its memory
    return detector
