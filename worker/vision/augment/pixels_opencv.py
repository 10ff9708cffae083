"""Compute the pixels of augmentations with OpenCV on a CPU. ``pixels_torch`` does the same on a GPU.

The result of each operation is the same as that of the corresponding function in
``torchvision.transforms.v2.functional`` (or in Pillow) with the same parameters. Images are ``[H, W, 3]``, uint8, RGB.
"""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.vision.augment.operations import Matrix, Transform
from worker.vision.imaging import Rgb, encode_jpeg

_LUMA: Final = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in the luma (ITU-R BT.601). Pillow and torchvision use the same weights."""


def apply_transform(rgb: Rgb, transform: Transform) -> Rgb:
    """Apply a transform to an image.

    :param rgb: ``[H, W, 3]``, uint8; the array is not modified.
    :returns: a new image of the same shape. The same input always gives the same bytes.
    """
    return OPERATIONS[transform.name](rgb, transform)


def _warp(rgb: Rgb, matrix: Matrix, border: int) -> Rgb:
    """Warp an image.

    :param matrix: matrix ``[3, 3]`` that maps points of the image to points of the result. The points are in continuous
        coordinates, in which the centre of the first pixel is at (0.5, 0.5).
    :param border: OpenCV's border mode, which says how the parts of the result that lie outside the image are filled.
    """
    # In OpenCV, the origin is the centre of the first pixel. In continuous coordinates, the origin is the corner of the
    # first pixel.
    to_corner = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    to_centre = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    matrix, size = to_centre @ matrix @ to_corner, (rgb.shape[1], rgb.shape[0])
    # OpenCV warps an image with four channels in a third of the time that it needs for an image with three.
    rgba = cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA)
    if (matrix[2] == [0, 0, 1]).all():
        rgba = cv2.warpAffine(rgba, matrix[:2], size, borderMode=border)
    else:
        rgba = cv2.warpPerspective(rgba, matrix, size, borderMode=border)
    warped: Rgb = cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB)
    return warped


def _horizontal_flip(rgb: Rgb, _transform: Transform) -> Rgb:
    flipped: Rgb = cv2.flip(rgb, 1)
    return flipped


def _warp_black_border(rgb: Rgb, transform: Transform) -> Rgb:
    return _warp(rgb, transform.matrix, cv2.BORDER_CONSTANT)


def _warp_mirrored_border(rgb: Rgb, transform: Transform) -> Rgb:
    return _warp(rgb, transform.matrix, cv2.BORDER_REFLECT_101)


def _random_crop(rgb: Rgb, transform: Transform) -> Rgb:
    x, y, width, height = (transform.params[name] for name in ("x", "y", "width", "height"))
    resized: Rgb = cv2.resize(rgb[y : y + height, x : x + width], (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR)
    return resized


def _color_jitter(rgb: Rgb, transform: Transform) -> Rgb:
    brightness, contrast, saturation, hue = (transform.params[name] for name in ("brightness", "contrast", "saturation", "hue"))
    brightened = np.clip(np.arange(256) * brightness, 0, 255)
    mean = float(_LUMA @ cv2.mean(cv2.LUT(rgb, brightened.astype(np.uint8)))[:3])
    contrasted = cv2.LUT(rgb, np.clip((brightened - mean) * contrast + mean, 0, 255).round().astype(np.uint8))
    # To change the saturation, each channel is blended linearly with the luma.
    saturated = cv2.transform(contrasted, np.eye(3) * saturation + (1 - saturation) * _LUMA)
    hsv = cv2.cvtColor(saturated, cv2.COLOR_RGB2HSV_FULL)
    # HSV_FULL divides the hue circle into 256 steps, so the overflow of uint8 wraps around the circle correctly.
    hsv[..., 0] += np.uint8(round(hue * 256) % 256)
    jittered: Rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return jittered


def _gaussian_blur(rgb: Rgb, transform: Transform) -> Rgb:
    blurred: Rgb = cv2.GaussianBlur(rgb, (0, 0), transform.params["sigma"])
    return blurred


def _motion_blur(rgb: Rgb, transform: Transform) -> Rgb:
    length = transform.params["length"]
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    rotation = cv2.getRotationMatrix2D((length / 2 - 0.5, length / 2 - 0.5), transform.params["degrees"], 1)
    kernel = cv2.warpAffine(kernel, rotation, (length, length))
    blurred: Rgb = cv2.filter2D(rgb, -1, kernel / kernel.sum())
    return blurred


def _sample_noise(rgb: Rgb, transform: Transform) -> NDArray[np.float32]:
    rng = np.random.default_rng(transform.seed)
    # Skip the random values that were used to sample the parameters, one for each parameter.
    rng.random(len(transform.params))
    noise = rng.standard_normal(rgb.shape, np.float32)
    noise *= np.float32(transform.params["sigma"])
    return noise


def _noise(rgb: Rgb, transform: Transform) -> Rgb:
    noisy: Rgb = cv2.add(rgb, _sample_noise(rgb, transform), dtype=cv2.CV_8U)
    return noisy


def _grayscale(rgb: Rgb, _transform: Transform) -> Rgb:
    grey: Rgb = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return grey


def _equalize(rgb: Rgb, _transform: Transform) -> Rgb:
    tables = [_equalization_table(cv2.calcHist([rgb], [channel], None, [256], [0, 256]).ravel()) for channel in range(3)]
    equalized: Rgb = cv2.LUT(rgb, np.stack(tables, 1)[:, None])
    return equalized


def _equalization_table(histogram: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the lookup table ``[256]`` that equalizes a channel's histogram, as ``PIL.ImageOps.equalize`` does."""
    counts = histogram.astype(np.int64)
    step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
    if step == 0:
        return np.arange(256, dtype=np.uint8)
    cumulative = counts.cumsum() - counts
    table: NDArray[np.uint8] = np.minimum((step // 2 + cumulative) // step, 255).astype(np.uint8)
    return table


def _cutout(rgb: Rgb, transform: Transform) -> Rgb:
    covered = rgb.copy()
    for x1, y1, x2, y2 in transform.params["holes"]:
        covered[y1:y2, x1:x2] = 128
    return covered


def _jpeg_artifacts(rgb: Rgb, transform: Transform) -> Rgb:
    bgr = cv2.imdecode(np.frombuffer(encode_jpeg(rgb, transform.params["quality"]), np.uint8), cv2.IMREAD_COLOR)
    compressed: Rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return compressed


def _low_light(rgb: Rgb, transform: Transform) -> Rgb:
    darkened: Rgb = cv2.addWeighted(rgb, transform.params["gain"], _sample_noise(rgb, transform), 1, 0, dtype=cv2.CV_8U)
    return darkened


OPERATIONS: Final[dict[str, Callable[[Rgb, Transform], Rgb]]] = {
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
    "jpeg_artifacts": _jpeg_artifacts,
    "low_light": _low_light,
}
