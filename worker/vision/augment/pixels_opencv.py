"""The pixels of augmentations by OpenCV, on a CPU. ``pixels_torch`` is the same for a GPU.

Each operation does what its counterpart of ``torchvision.transforms.v2.functional`` (or Pillow) does with the parameters of its plan.
"""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.vision.augment.operations import Matrix, Plan
from worker.vision.imaging import Rgb, encode_jpeg

_LUMA: Final = np.array([0.299, 0.587, 0.114])
"""Rec. 601, as Pillow and torchvision weigh red, green and blue."""


def make(rgb: Rgb, plan: Plan) -> Rgb:
    """Make the pixels of an operation on ``[H, W, 3]``, which stays as it is; the same size, and the same bytes each time."""
    return OPERATIONS[plan.name](rgb, plan)


def _warp(rgb: Rgb, matrix: Matrix, border: int) -> Rgb:
    """Move pixels by a matrix of continuous coordinates."""
    # OpenCV counts from the centre of the first pixel.
    to_edge = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    to_centre = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    moved, size = to_centre @ matrix @ to_edge, (rgb.shape[1], rgb.shape[0])
    four = cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA)  # four channels take a third of the time that three take
    if (moved[2] == [0, 0, 1]).all():
        four = cv2.warpAffine(four, moved[:2], size, borderMode=border)
    else:
        four = cv2.warpPerspective(four, moved, size, borderMode=border)
    made: Rgb = cv2.cvtColor(four, cv2.COLOR_RGBA2RGB)
    return made


def _horizontal_flip(rgb: Rgb, _plan: Plan) -> Rgb:
    made: Rgb = cv2.flip(rgb, 1)
    return made


def _on_black(rgb: Rgb, plan: Plan) -> Rgb:
    return _warp(rgb, plan.matrix, cv2.BORDER_CONSTANT)


def _mirrored(rgb: Rgb, plan: Plan) -> Rgb:
    return _warp(rgb, plan.matrix, cv2.BORDER_REFLECT_101)


def _random_crop(rgb: Rgb, plan: Plan) -> Rgb:
    x, y, width, height = (plan.params[name] for name in ("x", "y", "width", "height"))
    made: Rgb = cv2.resize(rgb[y : y + height, x : x + width], (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR)
    return made


def _color_jitter(rgb: Rgb, plan: Plan) -> Rgb:
    brightness, contrast, saturation, hue = (plan.params[name] for name in ("brightness", "contrast", "saturation", "hue"))
    lit = np.clip(np.arange(256) * brightness, 0, 255)
    mean = float(_LUMA @ cv2.mean(cv2.LUT(rgb, lit.astype(np.uint8)))[:3])
    contrasted = cv2.LUT(rgb, np.clip((lit - mean) * contrast + mean, 0, 255).round().astype(np.uint8))
    # Each channel goes towards the luma, or away from it.
    saturated = cv2.transform(contrasted, np.eye(3) * saturation + (1 - saturation) * _LUMA)
    hsv = cv2.cvtColor(saturated, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(hue * 256) % 256)  # the circle has 256 steps, so a byte wraps as it does
    made: Rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return made


def _gaussian_blur(rgb: Rgb, plan: Plan) -> Rgb:
    made: Rgb = cv2.GaussianBlur(rgb, (0, 0), plan.params["sigma"])
    return made


def _motion_blur(rgb: Rgb, plan: Plan) -> Rgb:
    length = plan.params["length"]
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    turn = cv2.getRotationMatrix2D((length / 2 - 0.5, length / 2 - 0.5), plan.params["degrees"], 1)
    kernel = cv2.warpAffine(kernel, turn, (length, length))
    made: Rgb = cv2.filter2D(rgb, -1, kernel / kernel.sum())
    return made


def _grain(rgb: Rgb, plan: Plan) -> NDArray[np.float32]:
    rng = np.random.default_rng(plan.seed)
    rng.random(len(plan.params))  # each parameter has taken one number; the grain is what follows
    grain = rng.standard_normal(rgb.shape, np.float32)
    grain *= np.float32(plan.params["sigma"])
    return grain


def _noise(rgb: Rgb, plan: Plan) -> Rgb:
    made: Rgb = cv2.add(rgb, _grain(rgb, plan), dtype=cv2.CV_8U)
    return made


def _grayscale(rgb: Rgb, _plan: Plan) -> Rgb:
    made: Rgb = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return made


def _equalize(rgb: Rgb, _plan: Plan) -> Rgb:
    tables = [_equalizing(cv2.calcHist([rgb], [channel], None, [256], [0, 256]).ravel()) for channel in range(3)]
    made: Rgb = cv2.LUT(rgb, np.stack(tables, 1)[:, None])
    return made


def _equalizing(histogram: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Make the table ``[256]`` that spreads a channel's values evenly, as ``PIL.ImageOps.equalize`` does."""
    counts = histogram.astype(np.int64)
    step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
    if step == 0:
        return np.arange(256, dtype=np.uint8)
    before = counts.cumsum() - counts
    table: NDArray[np.uint8] = np.minimum((step // 2 + before) // step, 255).astype(np.uint8)
    return table


def _cutout(rgb: Rgb, plan: Plan) -> Rgb:
    made = rgb.copy()
    for x1, y1, x2, y2 in plan.params["holes"]:
        made[y1:y2, x1:x2] = 128
    return made


def _jpeg_artifacts(rgb: Rgb, plan: Plan) -> Rgb:
    read = cv2.imdecode(np.frombuffer(encode_jpeg(rgb, plan.params["quality"]), np.uint8), cv2.IMREAD_COLOR)
    made: Rgb = cv2.cvtColor(read, cv2.COLOR_BGR2RGB)
    return made


def _low_light(rgb: Rgb, plan: Plan) -> Rgb:
    made: Rgb = cv2.addWeighted(rgb, plan.params["gain"], _grain(rgb, plan), 1, 0, dtype=cv2.CV_8U)
    return made


OPERATIONS: Final[dict[str, Callable[[Rgb, Plan], Rgb]]] = {
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
    "jpeg_artifacts": _jpeg_artifacts,
    "low_light": _low_light,
}
