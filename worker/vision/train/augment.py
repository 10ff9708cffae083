"""Variation of training pictures: what cameras, light and people do to the same thing."""

import cv2
import numpy as np

from worker.vision.train.drawings import Picture, Rng

_STEPS = np.arange(256, dtype=np.float32)[:, None]


def crop(picture: Picture, size: int, rng: Rng, *, least: float) -> Picture:
    """Cut out a random part, turned, sheared and perhaps mirrored, as a square of ``size``.

    :param least: the smallest share of the area that is taken.
    """
    area, ratio = rng.uniform(least, 1.0), np.exp(rng.uniform(-0.29, 0.29))
    picture = _reduced(picture, np.sqrt(area) / size)
    high, wide = picture.shape[:2]
    h, w = min(high, high * np.sqrt(area / ratio)), min(wide, wide * np.sqrt(area * ratio))
    y, x = rng.uniform(0, high - h), rng.uniform(0, wide - w)
    turn = np.deg2rad(rng.uniform(-20, 20)) if rng.random() < 0.5 else 0.0
    shear = rng.uniform(-0.15, 0.15) if rng.random() < 0.3 else 0.0
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    # From the square's own pixels to the picture's: scaled to the part, mirrored, sheared and turned about its middle.
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.array([[mirror, shear], [0, 1]]) @ np.diag([w / size, h / size])
    middle = np.array([x + w / 2, y + h / 2])
    matrix = np.hstack([linear, (middle - linear @ [size / 2, size / 2])[:, None]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    made: Picture = cv2.warpAffine(picture, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return made


def _reduced(picture: Picture, share: float) -> Picture:
    """Reduce a picture by area so far that a pixel of the crop is about one of its own: bilinear sampling alone would alias.

    :param share: of the picture's sides, for one pixel of the crop.
    """
    times = round(min(picture.shape[:2]) * share)
    if times < 2:
        return picture
    made: Picture = cv2.resize(picture, (picture.shape[1] // times, picture.shape[0] // times), interpolation=cv2.INTER_AREA)
    return made


def light(picture: Picture, rng: Rng) -> Picture:
    """Change exposure, contrast, gamma, tint and saturation; now and then blur, grain, loss of colour or of detail."""
    gain = rng.uniform(0.6, 1.4) * (1 + rng.uniform(-0.14, 0.14, 3))
    values = 255 * (_STEPS / 255) ** np.exp(rng.uniform(-0.3, 0.3))
    table = (values - 128) * rng.uniform(0.75, 1.25) + 128 + rng.uniform(-15, 15)
    lit: Picture = cv2.LUT(picture, np.clip(table * gain, 0, 255).astype(np.uint8)[:, None])
    fate = rng.random()
    if fate < 0.5:
        grey = cv2.cvtColor(cv2.cvtColor(lit, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        kept = 0.0 if fate < 0.04 else float(rng.uniform(0.5, 1.5))
        lit = cv2.addWeighted(lit, kept, grey, 1 - kept, 0)
    fate = rng.random()
    if fate < 0.15:
        lit = cv2.GaussianBlur(lit, (0, 0), float(rng.uniform(0.4, 1.6)))
    elif fate < 0.25:
        lit = cv2.add(lit, rng.standard_normal(lit.shape, np.float32) * np.float32(rng.uniform(3, 14)), dtype=cv2.CV_8U)
    elif fate < 0.35:
        side = int(lit.shape[0] * rng.uniform(0.35, 0.7))
        lit = cv2.resize(cv2.resize(lit, (side, side), interpolation=cv2.INTER_AREA), lit.shape[1::-1])
    return lit


def erase(picture: Picture, rng: Rng) -> None:
    """Cover up to three rectangles with a colour, in place (random erasing, Zhong et al. 2020)."""
    size = picture.shape[0]
    for _ in range(int(rng.integers(1, 4))):
        high, wide = (int(size * rng.uniform(0.08, 0.35)) for _ in range(2))
        y, x = int(rng.integers(size - high)), int(rng.integers(size - wide))
        picture[y : y + high, x : x + wide] = rng.integers(0, 256, 3)
