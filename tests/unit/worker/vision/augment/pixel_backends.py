"""The two backends of augmentations, both on the CPU: the same tests apply to each."""

from collections.abc import Callable
from functools import partial

from worker.vision.augment import pixels_opencv
from worker.vision.augment.operations import Transform
from worker.vision.augment.pixels_torch import TorchBackend
from worker.vision.imaging import Rgb

BACKENDS: dict[str, Callable[[Rgb], Callable[[Transform], Rgb]]] = {
    "opencv": lambda rgb: partial(pixels_opencv.apply_transform, rgb),
    "torch": lambda rgb: TorchBackend(rgb, "cpu"),
}
