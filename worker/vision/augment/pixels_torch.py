"""The pixels of augmentations by torchvision's v2 functions, and by torch where there is none; on any device, meant for a GPU.

A plan's parameters give the picture that ``pixels_opencv`` makes, but for roundings and the grain itself. On one device they give the same
bytes again: of what is used here no CUDA kernel adds floats in an order that changes (``grid_sample``, ``index_select``, ``interpolate``, the
convolutions and ``randn`` with a generator of its own forwards; ``scatter_add`` in ``equalize`` counts in whole numbers).
"""

from collections.abc import Callable
from typing import Final

import worker.vision.without_compiler  # noqa: F401 -- before torchvision

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from worker.vision.augment import pixels_opencv
from worker.vision.augment.operations import Matrix, Plan
from worker.vision.imaging import Rgb


class Pixels:
    """Makes the pixels of one picture's operations on a device, to which it is brought once, with the first of them in ``OPERATIONS``.

    Where memory is too small there OpenCV makes this one and the others. Not for several threads at once.
    """

    def __init__(self, rgb: Rgb, device: str) -> None:
        """Take a picture ``[H, W, 3]``, which stays as it is."""
        self._rgb, self._device = rgb, device
        self._picture: Tensor | None = None
        self._fits = True

    def __call__(self, plan: Plan) -> Rgb:
        """Make the pixels of an operation."""
        if self._fits and plan.name in OPERATIONS:
            try:
                return self._made(plan)
            except torch.OutOfMemoryError:
                self._picture, self._fits = None, False
        return pixels_opencv.make(self._rgb, plan)

    def _made(self, plan: Plan) -> Rgb:
        if self._picture is None:
            self._picture = to_tensor(self._rgb, self._device)
        return to_rgb(make(self._picture, plan))


def make(picture: Tensor, plan: Plan) -> Tensor:
    """Make the pixels of one of ``OPERATIONS``.

    :param picture: ``[3, H, W]``, uint8, on any device; it stays as it is.
    :returns: another of its shape, on its device; the same bytes each time there.
    :raises torch.OutOfMemoryError: the device's memory is too small.
    """
    with torch.inference_mode():
        return OPERATIONS[plan.name](picture, plan)


def to_tensor(rgb: Rgb, device: str | torch.device) -> Tensor:
    """Bring a picture ``[H, W, 3]`` to a device, as ``[3, H, W]``: plane by plane, for convolutions of each channel by itself."""
    return torch.from_numpy(np.require(rgb, requirements=["C", "W"])).to(device).permute(2, 0, 1).contiguous()


def to_rgb(picture: Tensor) -> Rgb:
    """Bring ``[3, H, W]`` back, as ``[H, W, 3]``."""
    rgb: Rgb = picture.permute(1, 2, 0).contiguous().cpu().numpy()
    return rgb


def _warp(picture: Tensor, matrix: Matrix, border: str) -> Tensor:
    """Move pixels by a matrix of continuous coordinates; torchvision's own warps cannot mirror what lies outside."""
    height, width = picture.shape[-2:]
    across = torch.arange(width, device=picture.device) + 0.5
    down = (torch.arange(height, device=picture.device) + 0.5)[:, None]
    x, y, scale = (row[0] * across + row[1] * down + row[2] for row in np.linalg.inv(matrix).tolist())
    # From the centre of the first pixel, -1, to that of the last one, 1.
    grid = torch.stack([2 * (at / scale - 0.5) / max(1, side - 1) - 1 for at, side in ((x, width), (y, height))], -1)
    return _bytes(functional.grid_sample(picture[None].float(), grid[None], padding_mode=border, align_corners=True)[0])


def _continued(picture: Tensor, by: int) -> Tensor:
    """Continue a picture on all sides, mirrored at its outermost pixels; torch does so only with what is larger than ``by``."""
    rows, columns = (_mirrored_indices(side, by, picture.device) for side in picture.shape[-2:])
    return picture.index_select(1, rows).index_select(2, columns)


def _mirrored_indices(side: int, by: int, device: torch.device) -> Tensor:
    period = max(1, 2 * (side - 1))
    at = torch.arange(-by, side + by, device=device).remainder(period)
    return torch.minimum(at, period - at)


def _bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def _horizontal_flip(picture: Tensor, _plan: Plan) -> Tensor:
    made: Tensor = tv.horizontal_flip(picture)
    return made


def _on_black(picture: Tensor, plan: Plan) -> Tensor:
    return _warp(picture, plan.matrix, "zeros")


def _mirrored(picture: Tensor, plan: Plan) -> Tensor:
    return _warp(picture, plan.matrix, "reflection")


def _random_crop(picture: Tensor, plan: Plan) -> Tensor:
    x, y, width, height = (plan.params[name] for name in ("x", "y", "width", "height"))
    return _bytes(tv.resize(tv.crop(picture, y, x, height, width).float(), list(picture.shape[-2:])))  # of bytes each device makes its own


def _color_jitter(picture: Tensor, plan: Plan) -> Tensor:
    contrasted = tv.adjust_contrast(tv.adjust_brightness(picture, plan.params["brightness"]), plan.params["contrast"])
    made: Tensor = tv.adjust_hue(tv.adjust_saturation(contrasted, plan.params["saturation"]), plan.params["hue"])
    return made


def _gaussian_blur(picture: Tensor, plan: Plan) -> Tensor:
    sigma = plan.params["sigma"]
    side = round(6 * sigma + 1) | 1  # as OpenCV has it for bytes
    edge = side // 2
    made: Tensor = tv.gaussian_blur(_continued(picture, edge), [side, side], [sigma, sigma])
    return made[:, edge:-edge, edge:-edge]


def _motion_blur(picture: Tensor, plan: Plan) -> Tensor:
    length = plan.params["length"]
    line = torch.zeros(1, length, length)
    line[0, length // 2] = 1
    line = tv.rotate(line, plan.params["degrees"], InterpolationMode.BILINEAR)
    kernel = (line / line.sum()).to(picture.device).repeat(3, 1, 1, 1)
    return _bytes(functional.conv2d(_continued(picture, length // 2)[None].float(), kernel, groups=3)[0])


def _grain(picture: Tensor, plan: Plan) -> Tensor:
    generator = torch.Generator(picture.device).manual_seed(plan.seed)
    grain = torch.randn(picture.shape, generator=generator, device=picture.device)
    return grain.mul_(plan.params["sigma"])


def _noise(picture: Tensor, plan: Plan) -> Tensor:
    return _bytes(picture + _grain(picture, plan))


def _grayscale(picture: Tensor, _plan: Plan) -> Tensor:
    return _bytes(tv.rgb_to_grayscale(picture.float(), 3))  # of bytes it would cut fractions off


def _equalize(picture: Tensor, _plan: Plan) -> Tensor:
    made: Tensor = tv.equalize(picture)
    return made


def _cutout(picture: Tensor, plan: Plan) -> Tensor:
    made = picture.clone()
    for x1, y1, x2, y2 in plan.params["holes"]:
        made[:, y1:y2, x1:x2] = 128
    return made


def _low_light(picture: Tensor, plan: Plan) -> Tensor:
    return _bytes(picture * plan.params["gain"] + _grain(picture, plan))


OPERATIONS: Final[dict[str, Callable[[Tensor, Plan], Tensor]]] = {
    "horizontal_flip": _horizontal_flip,
    "rotate": _on_black,
    "random_crop": _random_crop,
    "perspective": _mirrored,
    "shear": _mirrored,
    "color_jitter": _color_jitter,
    "gaussian_blur": _gaussian_blur,
    "motion_blur": _motion_blur,
    "noise": _noise,
    "grayscale": _grayscale,
    "equalize": _equalize,
    "cutout": _cutout,
    "low_light": _low_light,
}
"""Without ``jpeg_artifacts``, which OpenCV makes of the picture as it came. On CUDA torchvision's ``encode_jpeg`` keeps colours at full size
(4:4:4), so that other artifacts come of it; since 0.29 it is deprecated."""
