"""Who makes pixels, each on a CPU: what is asked of one is asked of the other."""

from collections.abc import Callable
from functools import partial

from worker.vision.augment import pixels_opencv
from worker.vision.augment.operations import Plan
from worker.vision.augment.pixels_torch import Pixels
from worker.vision.imaging import Rgb

MAKERS: dict[str, Callable[[Rgb], Callable[[Plan], Rgb]]] = {
    "opencv": lambda rgb: partial(pixels_opencv.make, rgb),
    "torch": lambda rgb: Pixels(rgb, "cpu"),
}
