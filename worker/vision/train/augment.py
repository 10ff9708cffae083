"""Augment training images randomly, to vary the viewpoint, the lighting, the camera, and the occlusion."""

import cv2
import numpy as np

from worker.vision.train.drawings import Image, Rng

_LEVELS = np.arange(256, dtype=np.float32)[:, None]


def random_crop(image: Image, size: int, rng: Rng, *, min_area: float) -> Image:
    """Cut out a random part of an image, rotate, shear and mirror it randomly, and resize it to a square.

    :param size: side of the returned square in pixels.
    :param min_area: the smallest share of the image's area that the part can have.
    """
    area, ratio = rng.uniform(min_area, 1.0), np.exp(rng.uniform(-0.29, 0.29))
    image = _downscale(image, np.sqrt(area) / size)
    height, width = image.shape[:2]
    h, w = min(height, height * np.sqrt(area / ratio)), min(width, width * np.sqrt(area * ratio))
    y, x = rng.uniform(0, height - h), rng.uniform(0, width - w)
    angle = np.deg2rad(rng.uniform(-20, 20)) if rng.random() < 0.5 else 0.0
    shear = rng.uniform(-0.15, 0.15) if rng.random() < 0.3 else 0.0
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    # The matrix maps pixels of the square to pixels of the image. It scales to the size of the part, and then mirrors,
    # shears, and rotates about the centre of the part.
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ np.array([[mirror, shear], [0, 1]]) @ np.diag([w / size, h / size])
    centre = np.array([x + w / 2, y + h / 2])
    matrix = np.hstack([linear, (centre - linear @ [size / 2, size / 2])[:, None]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cropped: Image = cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return cropped


def _downscale(image: Image, share: float) -> Image:
    """Reduce an image before a crop is sampled from it, so that its pixels are about as large as those of the crop.

    The image is reduced by area averaging. Without this reduction, the bilinear sampling of the crop would cause
    aliasing.

    :param share: the side of one pixel of the crop, as a share of the image's shorter side.
    """
    factor = round(min(image.shape[:2]) * share)
    if factor < 2:
        return image
    size = (image.shape[1] // factor, image.shape[0] // factor)
    reduced: Image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return reduced


def photometric_distort(image: Image, rng: Rng) -> Image:
    """Change the exposure, contrast, gamma, tint and saturation of an image by random amounts.

    Some images also lose their colour, and some are blurred, get noise, or lose detail.
    """
    gain = rng.uniform(0.6, 1.4) * (1 + rng.uniform(-0.14, 0.14, 3))
    values = 255 * (_LEVELS / 255) ** np.exp(rng.uniform(-0.3, 0.3))
    table = (values - 128) * rng.uniform(0.75, 1.25) + 128 + rng.uniform(-15, 15)
    result: Image = cv2.LUT(image, np.clip(table * gain, 0, 255).astype(np.uint8)[:, None])
    chance = rng.random()
    if chance < 0.5:
        grey = cv2.cvtColor(cv2.cvtColor(result, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        saturation = 0.0 if chance < 0.04 else float(rng.uniform(0.5, 1.5))
        result = cv2.addWeighted(result, saturation, grey, 1 - saturation, 0)
    chance = rng.random()
    if chance < 0.15:
        result = cv2.GaussianBlur(result, (0, 0), float(rng.uniform(0.4, 1.6)))
    elif chance < 0.25:
        noise = rng.standard_normal(result.shape, np.float32) * np.float32(rng.uniform(3, 14))
        result = cv2.add(result, noise, dtype=cv2.CV_8U)
    elif chance < 0.35:
        side = int(result.shape[0] * rng.uniform(0.35, 0.7))
        result = cv2.resize(cv2.resize(result, (side, side), interpolation=cv2.INTER_AREA), result.shape[1::-1])
    return result


def random_erase(image: Image, rng: Rng) -> None:
    """Fill one to three rectangles in a square image with random colours, in place (Zhong et al. 2020)."""
    size = image.shape[0]
    for _ in range(int(rng.integers(1, 4))):
        height, width = (int(size * rng.uniform(0.08, 0.35)) for _ in range(2))
        y, x = int(rng.integers(size - height)), int(rng.integers(size - width))
        image[y : y + height, x : x + width] = rng.integers(0, 256, 3)
