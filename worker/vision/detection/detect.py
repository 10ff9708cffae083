"""Finding things in pictures with a torchvision detector, on whatever computes it here."""

from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from worker.vision.detection import model_registry, runtimes
from worker.vision.detection.model_registry import BUNDLED, Card
from worker.vision.imaging import Rgb, use_threads

BATCH: Final = 8
"""Pictures at once on a CPU, where 4 to 8 are fastest and 16 are no better."""
CUDA_BATCH: Final = 64
HALF_LOSS: Final = 0.005
"""The mAP50 that a model may lose in half precision and still be computed in it."""


class Detector:
    """Finds things in pictures. Not for several threads at once; ``load`` makes one."""

    def __init__(
        self, model: nn.Module, card: Card, *, device: str, precision: runtimes.Precision, threads: int,
        instead: "Callable[[], Detector] | None" = None,
    ) -> None:  # fmt: skip
        """Put an engine into the model.

        :param instead: makes the detector that looks at a picture for which this one's memory is too small.
        """
        self._card, self._model = card, model.eval()
        self._instead: Detector | Callable[[], Detector] | None = instead
        self.device = device
        self.batch = BATCH if device == "cpu" else CUDA_BATCH
        """Pictures that are looked at together; fewer after memory was too small for them."""
        self.precision = runtimes.install(model, device=device, precision=precision, threads=threads)

    @property
    def info(self) -> dict[str, str]:
        """Name, version and digest of the weights: kept with every result."""
        return self._card.info

    def predict(self, pictures: list[Rgb], *, threshold: float | None = None) -> list[list[dict[str, Any]]]:
        """Look at pictures ``[H, W, 3]`` of any size.

        :param threshold: least score of a detection; the model's own by default.
        :returns: for each ``{"label", "score", "box"}``, the best first; boxes are x1, y1, x2, y2 in its own pixels.
        """
        least = self._card.threshold if threshold is None else threshold
        found: list[list[dict[str, Any]]] = []
        while len(found) < len(pictures):
            some = pictures[len(found) : len(found) + self.batch]
            try:
                raw = self._raw(some)
            except torch.OutOfMemoryError:
                if len(some) > 1:
                    self.batch = len(some) // 2  # and stays so: the next as many would not fit either
                    continue
                if self._instead is None:
                    raise
                if not isinstance(self._instead, Detector):
                    self._instead = self._instead()
                found += self._instead.predict(some, threshold=threshold)
                continue
            found += [self._named(one, rgb, least) for one, rgb in zip(raw, some, strict=True)]
        return found

    def _raw(self, pictures: list[Rgb]) -> list[dict[str, Tensor]]:
        with torch.inference_mode():
            views = [torch.from_numpy(np.require(rgb, requirements=["C", "W"])).permute(2, 0, 1) for rgb in pictures]
            return list(self._model(views))

    def _named(self, raw: dict[str, Tensor], rgb: Rgb, least: float) -> list[dict[str, Any]]:
        height, width = rgb.shape[:2]
        boxes = raw["boxes"].cpu().numpy().clip(0, [width, height, width, height])
        named = []
        for box, score, label in zip(boxes, raw["scores"].tolist(), raw["labels"].tolist(), strict=True):
            if score >= least:
                named.append({"label": self._card.labels[label], "score": round(score, 4), "box": [round(float(side), 1) for side in box]})
        return named


def load(
    source: str = BUNDLED, *, threads: int = 1, device: str | None = None, precision: Literal["auto", "full", "half"] = "auto"
) -> Detector:
    """Load a model and make it ready.

    :param source: see ``model_registry.load``.
    :param threads: threads that torch, OpenCV and the engine may each use in this process.
    :param device: ``cpu`` or ``cuda``; a GPU where there is one by default.
    :param precision: ``auto`` takes half precision where the device has it and the model's card says that it loses at most
        ``HALF_LOSS`` by it.
    :raises ModelUnusable: see ``model_registry.load``; or a GPU is asked for where there is none.
    """
    chosen = runtimes.chosen(device)
    torch.set_num_threads(threads)
    use_threads(threads)
    model, card = model_registry.load(source)
    if precision == "auto":
        harmless = card.half_loss is not None and card.half_loss <= HALF_LOSS
        precision = "half" if harmless and runtimes.has_half(chosen) else "full"

    def on_cpu() -> Detector:
        return load(source, threads=threads, device="cpu", precision="full")

    instead = on_cpu if chosen != "cpu" else None
    made = Detector(model, card, device=chosen, precision=precision, threads=threads, instead=instead)
    made.predict([np.zeros((64, 64, 3), np.uint8)])  # what is compiled or allocated on first use is so now
    return made
