"""Augment one image.

Parameters and boxes come from ``operations`` and are the same on every device; the pixels come from OpenCV on a CPU
(``pixels_opencv``) or from torchvision on a GPU (``pixels_torch``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from worker.vision.augment import operations, pixels_opencv
from worker.vision.augment.operations import Transform
from worker.vision.imaging import Rgb


@dataclass(slots=True)
class AugmentedImage:
    """The result of one operation.

    ``rgb`` is ``[H, W, 3]``, uint8, of the size of the input; ``params`` are the sampled parameters. ``boxes`` holds,
    for each remaining box, its index in the input list and its new place: x1, y1, x2, y2 in pixels.
    """

    rgb: Rgb
    params: dict[str, Any]
    boxes: list[tuple[int, list[float]]]


class Augmenter:
    """Augmentations of one image. Not thread-safe."""

    def __init__(self, rgb: Rgb, *, image_id: str, device: str = "cpu") -> None:
        """Take an image; it is not modified.

        :param rgb: ``[H, W, 3]``, uint8.
        :param image_id: seeds the parameters; the same id gives the same augmentations.
        :param device: where pixels are computed: ``cpu`` by OpenCV, ``cuda`` by torchvision.
        """
        self._height, self._width = rgb.shape[:2]
        self._image_id = image_id
        self._apply = _backend(rgb, device)

    def apply(self, name: str, boxes: list[list[float]]) -> AugmentedImage:
        """Apply one operation to the original image.

        :param name: a key of ``operations.OPERATIONS``.
        :param boxes: x1, y1, x2, y2 in pixels of the image.
        """
        transform = operations.sample_transform(name, self._height, self._width, image_id=self._image_id)
        return AugmentedImage(self._apply(transform), transform.params, transform.transform_boxes(boxes))


def _backend(rgb: Rgb, device: str) -> Callable[[Transform], Rgb]:
    if device == "cpu":
        return partial(pixels_opencv.apply_transform, rgb)
    from worker.vision.augment.pixels_torch import TorchBackend  # noqa: PLC0415 -- importing torch takes seconds and memory that a sandbox child need not spend

    return TorchBackend(rgb, device)
