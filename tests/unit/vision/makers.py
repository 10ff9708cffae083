"""Who makes pixels, each on a CPU: what is asked of one is asked of the other."""

from collections.abc import Callable
from functools import partial

from worker.vision import pixels_opencv
from worker.vision.imaging import Rgb
from worker.vision.operations import Plan
from worker.vision.pixels_torch import Pixels

MAKERS: dict[str, Callable[[Rgb], Callable[[Plan], Rgb]]] = {
    "opencv": lambda rgb: partial(pixels_opencv.make, rgb),
    "torch": lambda rgb: Pixels(rgb, "cpu"),
}
