"""Compute the pixels of augmentations with torchvision's v2 functions, or with torch if there is no such function.

The module is intended for a GPU but works on any device. A transform gives the same image as in ``pixels_opencv``,
except for rounding and for the noise, which comes from another random generator. On a given device, a transform gives
the same bytes every time, because none of the CUDA kernels that are used here adds floats in a varying order. These
kernels compute the forward passes of ``grid_sample``, ``index_select``, ``interpolate`` and the convolutions, and
``randn`` with its own generator. ``equalize`` also uses ``scatter_add``, which adds numbers in a varying order, but it
only adds integers, and their sum does not depend on the order.
"""

from collections.abc import Callable
from typing import Final

import worker.vision.without_compiler  # noqa: F401 -- must be imported before torchvision

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from worker.vision.augment import pixels_opencv
from worker.vision.augment.operations import Matrix, Transform
from worker.vision.imaging import Rgb


class TorchBackend:
    """Applies transforms to one image on a device.

    The image is copied to the device once, when the first transform needs it. If the memory of the device is too small
    for a transform, OpenCV computes this transform and all later ones. An instance is not thread-safe.
    """

    def __init__(self, rgb: Rgb, device: str) -> None:
        """Prepare to transform an image ``[H, W, 3]``, uint8. The array is not modified."""
        self._rgb, self._device = rgb, device
        self._image: Tensor | None = None
        self._fits = True

    def __call__(self, transform: Transform) -> Rgb:
        """Apply a transform on the device.

        OpenCV computes the transform on the CPU instead if ``OPERATIONS`` in this module has no entry for the
        transform, or if the memory of the device was too small for this transform or an earlier one.

        :returns: a new image ``[H, W, 3]``, uint8.
        """
        if self._fits and transform.name in OPERATIONS:
            try:
                return self._apply(transform)
            except torch.OutOfMemoryError:
                self._image, self._fits = None, False
        return pixels_opencv.apply_transform(self._rgb, transform)

    def _apply(self, transform: Transform) -> Rgb:
        if self._image is None:
            self._image = to_tensor(self._rgb, self._device)
        return to_rgb(apply_transform(self._image, transform))


def apply_transform(image: Tensor, transform: Transform) -> Tensor:
    """Apply a transform to an image on the image's device.

    :param image: ``[3, H, W]``, uint8, on any device; the tensor is not modified.
    :param transform: a transform whose name is a key of ``OPERATIONS``.
    :returns: a new tensor with the same shape and dtype on the same device. On a given device, the same input always
        gives the same bytes.
    :raises torch.OutOfMemoryError: the memory of the device is too small.
    """
    with torch.inference_mode():
        return OPERATIONS[transform.name](image, transform)


def to_tensor(rgb: Rgb, device: str | torch.device) -> Tensor:
    """Copy an image ``[H, W, 3]``, uint8, to a device as a contiguous tensor ``[3, H, W]``.

    With this memory layout, convolutions process each channel separately.
    """
    return torch.from_numpy(np.require(rgb, requirements=["C", "W"])).to(device).permute(2, 0, 1).contiguous()


def to_rgb(image: Tensor) -> Rgb:
    """Copy a tensor ``[3, H, W]``, uint8, to an array ``[H, W, 3]`` in the memory of the CPU."""
    rgb: Rgb = image.permute(1, 2, 0).contiguous().cpu().numpy()
    return rgb


def _warp(image: Tensor, matrix: Matrix, border: str) -> Tensor:
    """Warp an image with a matrix ``[3, 3]`` that maps points of the image to points of the result.

    The points are in continuous coordinates, in which the centre of the first pixel is at (0.5, 0.5).

    Torchvision's own functions for warping are not used because they cannot fill the border by mirroring.
    """
    height, width = image.shape[-2:]
    across = torch.arange(width, device=image.device) + 0.5
    down = (torch.arange(height, device=image.device) + 0.5)[:, None]
    x, y, w = (row[0] * across + row[1] * down + row[2] for row in np.linalg.inv(matrix).tolist())
    # With align_corners, -1 is the centre of the first pixel, and 1 is the centre of the last pixel.
    grid = torch.stack([2 * (position / w - 0.5) / max(1, side - 1) - 1 for position, side in ((x, width), (y, height))], -1)
    return _to_uint8(functional.grid_sample(image[None].float(), grid[None], padding_mode=border, align_corners=True)[0])


def _pad_reflect(image: Tensor, padding: int) -> Tensor:
    """Pad an image on all sides by reflecting it at its outermost pixels.

    Torch's own function for padding is not used because it requires that the image is larger than ``padding``.
    """
    rows, columns = (_reflected_indices(side, padding, image.device) for side in image.shape[-2:])
    return image.index_select(1, rows).index_select(2, columns)


def _reflected_indices(side: int, padding: int, device: torch.device) -> Tensor:
    period = max(1, 2 * (side - 1))
    index = torch.arange(-padding, side + padding, device=device).remainder(period)
    return torch.minimum(index, period - index)


def _to_uint8(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def _horizontal_flip(image: Tensor, _transform: Transform) -> Tensor:
    flipped: Tensor = tv.horizontal_flip(image)
    return flipped


def _warp_black_border(image: Tensor, transform: Transform) -> Tensor:
    return _warp(image, transform.matrix, "zeros")


def _warp_mirrored_border(image: Tensor, transform: Transform) -> Tensor:
    return _warp(image, transform.matrix, "reflection")


def _random_crop(image: Tensor, transform: Transform) -> Tensor:
    x, y, width, height = (transform.params[name] for name in ("x", "y", "width", "height"))
    # The crop is converted to floats because resizing uint8 gives different values on different devices.
    return _to_uint8(tv.resize(tv.crop(image, y, x, height, width).float(), list(image.shape[-2:])))


def _color_jitter(image: Tensor, transform: Transform) -> Tensor:
    contrasted = tv.adjust_contrast(tv.adjust_brightness(image, transform.params["brightness"]), transform.params["contrast"])
    jittered: Tensor = tv.adjust_hue(tv.adjust_saturation(contrasted, transform.params["saturation"]), transform.params["hue"])
    return jittered


def _gaussian_blur(image: Tensor, transform: Transform) -> Tensor:
    sigma = transform.params["sigma"]
    side = round(6 * sigma + 1) | 1  # the kernel size that OpenCV chooses for 8-bit images
    edge = side // 2
    blurred: Tensor = tv.gaussian_blur(_pad_reflect(image, edge), [side, side], [sigma, sigma])
    return blurred[:, edge:-edge, edge:-edge]


def _motion_blur(image: Tensor, transform: Transform) -> Tensor:
    length = transform.params["length"]
    line = torch.zeros(1, length, length)
    line[0, length // 2] = 1
    line = tv.rotate(line, transform.params["degrees"], InterpolationMode.BILINEAR)
    kernel = (line / line.sum()).to(image.device).repeat(3, 1, 1, 1)
    return _to_uint8(functional.conv2d(_pad_reflect(image, length // 2)[None].float(), kernel, groups=3)[0])


def _sample_noise(image: Tensor, transform: Transform) -> Tensor:
    generator = torch.Generator(image.device).manual_seed(transform.seed)
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    return noise.mul_(transform.params["sigma"])


def _noise(image: Tensor, transform: Transform) -> Tensor:
    return _to_uint8(image + _sample_noise(image, transform))


def _grayscale(image: Tensor, _transform: Transform) -> Tensor:
    # The image is converted to floats because torchvision truncates uint8 values instead of rounding them.
    return _to_uint8(tv.rgb_to_grayscale(image.float(), 3))


def _equalize(image: Tensor, _transform: Transform) -> Tensor:
    equalized: Tensor = tv.equalize(image)
    return equalized


def _cutout(image: Tensor, transform: Transform) -> Tensor:
    covered = image.clone()
    for x1, y1, x2, y2 in transform.params["holes"]:
        covered[:, y1:y2, x1:x2] = 128
    return covered


def _low_light(image: Tensor, transform: Transform) -> Tensor:
    return _to_uint8(image * transform.params["gain"] + _sample_noise(image, transform))


OPERATIONS: Final[dict[str, Callable[[Tensor, Transform], Tensor]]] = {
    "horizontal_flip": _horizontal_flip,
    "rotate": _warp_black_border,
    "random_crop": _random_crop,
    "perspective": _warp_mirrored_border,
    "shear": _warp_mirrored_border,
    "color_jitter": _color_jitter,
    "gaussian_blur": _gaussian_blur,
    "motion_blur": _motion_blur,
    "noise": _noise,
    "grayscale": _grayscale,
    "equalize": _equalize,
    "cutout": _cutout,
    "low_light": _low_light,
}
"""For each operation except ``jpeg_artifacts``, the function that computes its pixels.

OpenCV computes ``jpeg_artifacts`` from the input image for two reasons. On CUDA, torchvision's ``encode_jpeg`` does not
subsample chroma (4:4:4), so its artifacts would differ. ``encode_jpeg`` has also been deprecated since torchvision
0.29.
"""
