"""Augmentations of a picture: drawn and moved by one code (``operations``), their pixels made where the picture is looked at."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from worker.vision.augment import operations, pixels_opencv
from worker.vision.augment.operations import Plan
from worker.vision.imaging import Rgb


@dataclass(slots=True)
class Augmented:
    """A new picture, the parameters that made it, and the boxes that remain, each with the index of the one it was."""

    rgb: Rgb
    params: dict[str, Any]
    boxes: list[tuple[int, list[float]]]


class Augmenter:
    """Makes augmentations of one picture. Not for several threads at once."""

    def __init__(self, rgb: Rgb, *, image_id: str, device: str = "cpu") -> None:
        """Take a picture ``[H, W, 3]``, which stays as it is.

        :param device: where pixels are made: ``cpu`` by OpenCV, ``cuda`` by torchvision. Parameters and boxes are the same.
        """
        self._height, self._width = rgb.shape[:2]
        self._image_id = image_id
        self._pixels = _pixels(rgb, device)

    def apply(self, name: str, boxes: list[list[float]]) -> Augmented:
        """Apply one operation.

        :param name: one of ``operations.OPERATIONS``.
        :param boxes: x1, y1, x2, y2 in pixels of the picture.
        """
        plan = operations.draw(name, self._height, self._width, image_id=self._image_id)
        return Augmented(self._pixels(plan), plan.params, plan.moved(boxes))


def _pixels(rgb: Rgb, device: str) -> Callable[[Plan], Rgb]:
    if device == "cpu":
        return partial(pixels_opencv.make, rgb)
    from worker.vision.augment.pixels_torch import Pixels  # noqa: PLC0415 -- torch takes seconds and memory, which a helper is spared

    return Pixels(rgb, device)
