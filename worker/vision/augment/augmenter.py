"""Augment one image.

The module ``operations`` computes the parameters and the boxes, which are the same on every device. OpenCV computes the
pixels on a CPU (``pixels_opencv``), and torchvision computes them on a GPU (``pixels_torch``).
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
    """The result of applying one operation to an image.

    ``rgb`` is ``[H, W, 3]``, uint8, and has the same size as the input image. ``params`` are the sampled parameters of
    the operation. ``boxes`` has an entry for each input box that is still visible enough (see
    ``Transform.transform_boxes``): the index of the box in the input list, and the new coordinates of the box, x1, y1,
    x2, y2 in pixels.
    """

    rgb: Rgb
    params: dict[str, Any]
    boxes: list[tuple[int, list[float]]]


class Augmenter:
    """Applies augmentations to one image. An instance is not thread-safe."""

    def __init__(self, rgb: Rgb, *, image_id: str, device: str = "cpu") -> None:
        """Prepare to augment an image.

        :param rgb: ``[H, W, 3]``, uint8; the array is not modified.
        :param image_id: seed for the parameters of the operations. For the same image, the same id always gives the
            same parameters.
        :param device: the device that computes the pixels: ``cpu`` (with OpenCV) or ``cuda`` (with torchvision).
        """
        self._height, self._width = rgb.shape[:2]
        self._image_id = image_id
        self._apply = _backend(rgb, device)

    def apply(self, name: str, boxes: list[list[float]]) -> AugmentedImage:
        """Apply one operation to the image that was passed to the constructor.

        :param name: a key of ``operations.OPERATIONS``.
        :param boxes: the boxes of objects in the image, x1, y1, x2, y2 in pixels. They are transformed like the image.
        """
        transform = operations.sample_transform(name, self._height, self._width, image_id=self._image_id)
        return AugmentedImage(self._apply(transform), transform.params, transform.transform_boxes(boxes))


def _backend(rgb: Rgb, device: str) -> Callable[[Transform], Rgb]:
    if device == "cpu":
        return partial(pixels_opencv.apply_transform, rgb)
    from worker.vision.augment.pixels_torch import TorchBackend  # noqa: PLC0415 -- importing torch takes seconds and memory, and a sandbox child does not need it

    return TorchBackend(rgb, device)
