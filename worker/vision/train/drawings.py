"""Drawings of produce and cartons: pictures that this project makes itself, for its samples and as part of the training."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Rng = np.random.Generator
Colour = tuple[int, int, int]

_OVER: Final = 2  # drawn at twice the size, then reduced: smooth edges


@dataclass(frozen=True, slots=True)
class Look:
    """How a kind of produce is drawn."""

    shape: str
    colours: tuple[Colour, ...]
    stretch: float = 1.0


PRODUCE: Final[dict[str, Look]] = {
    "Apple": Look("apple", ((190, 30, 35), (120, 170, 40), (205, 60, 50))),
    "Banana": Look("crescent", ((240, 210, 60), (225, 195, 40))),
    "Orange": Look("ball", ((240, 140, 20), (235, 125, 10))),
    "Lemon": Look("lemon", ((245, 220, 50), (250, 230, 80))),
    "Lime": Look("lemon", ((90, 160, 40), (110, 175, 50))),
    "Tomato": Look("tomato", ((215, 40, 25), (200, 30, 20))),
    "Cucumber": Look("long", ((50, 110, 40), (60, 125, 50)), 4.0),
    "Carrots": Look("cone", ((235, 120, 30), (240, 130, 40)), 3.2),
    "Aubergine": Look("pear", ((60, 20, 70), (50, 15, 55)), 1.7),
    "Pear": Look("pear", ((190, 200, 70), (170, 180, 60)), 1.4),
    "Plum": Look("ball", ((90, 30, 80), (80, 25, 60)), 1.15),
    "Red-Beet": Look("ball", ((110, 20, 50), (120, 25, 60))),
    "Onion": Look("ball", ((200, 150, 80), (190, 135, 60)), 0.9),
    "Potato": Look("lump", ((200, 170, 110), (185, 150, 95)), 1.3),
    "Kiwi": Look("lump", ((120, 90, 50), (110, 80, 45)), 1.15),
}
CARTONS: Final[dict[str, tuple[Colour, Colour]]] = {
    "Milk": ((235, 240, 245), (40, 90, 180)),
    "Juice": ((250, 160, 40), (70, 140, 50)),
    "Yoghurt": ((245, 245, 240), (200, 60, 110)),
}


def produce(label: str, size: int, rng: Rng) -> tuple[Picture, Picture]:
    """Draw one piece.

    :param size: longest side in pixels.
    :returns: RGB ``[H, W, 3]`` and a mask ``[H, W]`` (0..255), cut to the piece.
    """
    look = PRODUCE[label]
    canvas = size * _OVER
    mask = np.zeros((canvas, canvas), np.uint8)
    centre = canvas // 2
    radius = int(canvas * 0.46)
    _SHAPES[look.shape](mask, centre, radius, look.stretch, rng)
    colour = np.array(look.colours[rng.integers(len(look.colours))], np.float32)
    rgb = _shade(mask, colour * rng.uniform(0.85, 1.1), rng)
    _details(rgb, mask, look.shape, centre, radius, rng)
    turn = cv2.getRotationMatrix2D((centre, centre), float(rng.uniform(-25, 25)), 1.0)
    rgb = cv2.warpAffine(rgb, turn, (canvas, canvas))
    mask = cv2.warpAffine(mask, turn, (canvas, canvas))
    return _cut(rgb, mask)


def carton(label: str, size: int, rng: Rng, code: Picture | None = None) -> tuple[Picture, Picture]:
    """Draw a carton, with a barcode where ``code`` (a picture of one) is given. Shapes as ``produce``."""
    height, width = size, int(size * 0.56)
    body, band = (np.array(colour, np.float32) * rng.uniform(0.92, 1.05) for colour in CARTONS[label])
    rgb = np.empty((height, width, 3), np.float32)
    rgb[:] = body
    rgb *= np.linspace(0.88, 1.06, width, dtype=np.float32)[None, :, None]
    top = int(height * 0.16)
    cv2.fillPoly(rgb, [np.array([[0, top], [width // 2, top // 3], [width, top]])], (body * 0.8).tolist())
    cv2.rectangle(rgb, (0, int(height * 0.3)), (width, int(height * 0.52)), band.tolist(), -1)
    cv2.circle(rgb, (width // 2, int(height * 0.66)), int(width * 0.2), (band * 0.9 + 20).tolist(), -1, cv2.LINE_AA)
    picture: Picture = np.clip(rgb, 0, 255).astype(np.uint8)
    at, scale = (int(width * 0.08), int(height * 0.44)), size / 330
    cv2.putText(picture, label.upper(), at, cv2.FONT_HERSHEY_DUPLEX, scale, (255, 255, 255), max(1, size // 160), cv2.LINE_AA)
    if code is not None:
        high, wide = code.shape[:2]
        left, base = (width - wide) // 2, height - high - int(height * 0.03)
        if left >= 0 and base >= 0:
            picture[base : base + high, left : left + wide] = code
    mask = np.full((height, width), 255, np.uint8)
    mask[:top] = 0
    cv2.fillPoly(mask, [np.array([[0, top], [width // 2, top // 3], [width, top]])], 255)
    return picture, mask


def backdrop(width: int, height: int, rng: Rng) -> Picture:
    """Draw a shelf or a crate to lay things on: ``[height, width, 3]``."""
    base = np.array([rng.uniform(60, 210)] * 3) + rng.uniform(-25, 25, 3)
    rows = np.linspace(rng.uniform(0.7, 1.0), rng.uniform(0.9, 1.2), height, dtype=np.float32)[:, None, None]
    noise = rng.normal(0, 6, (height // 4 + 1, width // 4 + 1, 1)).astype(np.float32)
    grain = cv2.resize(noise, (width, height))[..., None]
    picture = np.broadcast_to(base.astype(np.float32), (height, width, 3)) * rows + grain
    for line in range(int(rng.integers(2, 6))):
        y = int(height * (line + rng.uniform(0.2, 0.8)) / 5)
        picture[y : y + max(2, height // 90)] *= 0.75
    drawn: Picture = np.clip(picture, 0, 255).astype(np.uint8)
    return drawn


def paste(scene: Picture, piece: Picture, mask: Picture, x: int, y: int) -> None:
    """Lay a piece on a scene with its top left corner at ``(x, y)``, inside the scene."""
    high, wide = mask.shape
    alpha = mask[..., None].astype(np.float32) / 255
    under = scene[y : y + high, x : x + wide]
    scene[y : y + high, x : x + wide] = (piece * alpha + under * (1 - alpha)).astype(np.uint8)


def _shade(mask: Picture, colour: NDArray[np.float32], rng: Rng) -> Picture:
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    depth = cv2.GaussianBlur(np.sqrt(depth / max(1.0, float(depth.max()))), (0, 0), mask.shape[0] / 60)
    grain = cv2.resize(rng.normal(0, 0.03, (mask.shape[0] // 6, mask.shape[1] // 6)).astype(np.float32), mask.shape[::-1])
    light = 0.55 + 0.6 * depth + grain
    rgb = light[..., None] * colour
    high = mask.shape[0]
    spot = (int(high * rng.uniform(0.36, 0.46)), int(high * rng.uniform(0.32, 0.42)))
    shine = np.zeros(mask.shape, np.float32)
    cv2.circle(shine, spot, int(high * 0.05), 70.0, -1)
    rgb += cv2.GaussianBlur(shine, (0, 0), high / 28)[..., None]
    shaded: Picture = np.clip(rgb, 0, 255).astype(np.uint8)
    return shaded


def _details(rgb: Picture, mask: Picture, shape: str, centre: int, radius: int, rng: Rng) -> None:
    stem = max(2, radius // 12)
    if shape in {"apple", "pear"}:
        top = int(centre - radius * (0.8 if shape == "apple" else 0.98))
        for layer, colour in ((rgb, (80, 55, 30)), (mask, 255)):
            cv2.line(layer, (centre, top), (centre + stem, top - int(radius * 0.22)), colour, stem, cv2.LINE_AA)
    if shape == "tomato":
        for angle in np.arange(0, 2 * np.pi, 2 * np.pi / 5) + rng.uniform(0, 1):
            tip = (int(centre + np.cos(angle) * radius * 0.42), int(centre - radius * 0.35 + np.sin(angle) * radius * 0.25))
            cv2.line(rgb, (centre, int(centre - radius * 0.35)), tip, (50, 120, 40), stem, cv2.LINE_AA)
    if shape == "cone":
        for side in (-0.12, 0.0, 0.12):
            for layer, colour in ((rgb, (60, 140, 50)), (mask, 255)):
                root = (centre, int(centre - radius * 0.72))
                cv2.line(layer, root, (int(centre + side * radius * 2), int(centre - radius * 0.98)), colour, stem, cv2.LINE_AA)


def _ball(mask: Picture, c: int, r: int, stretch: float, rng: Rng) -> None:
    axes = (int(r / max(1.0, stretch)), int(r * min(1.0, 1 / stretch) if stretch < 1 else r))
    cv2.ellipse(mask, (c, c), (max(4, axes[0]), max(4, axes[1])), float(rng.uniform(0, 20)), 0, 360, 255, -1, cv2.LINE_AA)


def _apple(mask: Picture, c: int, r: int, _stretch: float, _rng: Rng) -> None:
    for side in (-1, 1):
        cv2.ellipse(mask, (int(c + side * r * 0.3), c), (int(r * 0.66), int(r * 0.86)), side * 8, 0, 360, 255, -1, cv2.LINE_AA)


def _lemon(mask: Picture, c: int, r: int, _stretch: float, _rng: Rng) -> None:
    cv2.ellipse(mask, (c, c), (int(r * 0.82), int(r * 0.62)), 0, 0, 360, 255, -1, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.ellipse(mask, (int(c + side * r * 0.8), c), (int(r * 0.2), int(r * 0.16)), 0, 0, 360, 255, -1, cv2.LINE_AA)


def _crescent(mask: Picture, c: int, r: int, _stretch: float, rng: Rng) -> None:
    width = float(rng.uniform(0.26, 0.34))
    angles = np.linspace(0.15 * np.pi, 0.85 * np.pi, 24)
    for step, angle in enumerate(angles):
        thick = int(r * width * np.sin(np.pi * (step + 3) / 29))
        cv2.circle(mask, (int(c + np.cos(angle) * r * 0.82), int(c - r * 0.45 + np.sin(angle) * r * 0.82)), max(3, thick), 255, -1)


def _long(mask: Picture, c: int, r: int, stretch: float, _rng: Rng) -> None:
    half = int(r / stretch)
    cv2.line(mask, (c - r + half, c), (c + r - half, c), 255, 2 * half, cv2.LINE_AA)


def _cone(mask: Picture, c: int, r: int, stretch: float, _rng: Rng) -> None:
    half = int(r / stretch)
    top = c - int(r * 0.7)
    cv2.fillPoly(mask, [np.array([[c - half, top], [c + half, top], [c, c + r]])], 255, cv2.LINE_AA)
    cv2.ellipse(mask, (c, top), (half, half // 2), 0, 0, 360, 255, -1, cv2.LINE_AA)


def _pear(mask: Picture, c: int, r: int, stretch: float, _rng: Rng) -> None:
    wide = int(r / stretch)
    cv2.ellipse(mask, (c, int(c + r - wide * 1.05)), (wide, wide), 0, 0, 360, 255, -1, cv2.LINE_AA)
    cv2.ellipse(mask, (c, int(c - r * 0.25)), (int(wide * 0.58), int(r * 0.72)), 0, 0, 360, 255, -1, cv2.LINE_AA)


def _lump(mask: Picture, c: int, r: int, stretch: float, rng: Rng) -> None:
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    waves = 1 + 0.05 * np.sin(angles * 3 + rng.uniform(0, 6)) + 0.04 * np.sin(angles * 5 + rng.uniform(0, 6))
    points = np.stack([c + np.cos(angles) * r * 0.92 * waves, c + np.sin(angles) * r * 0.92 / stretch * waves], 1)
    cv2.fillPoly(mask, [points.astype(np.int32)], 255, cv2.LINE_AA)


_SHAPES: Final[dict[str, Callable[[Picture, int, int, float, Rng], None]]] = {
    "apple": _apple,
    "ball": _ball,
    "cone": _cone,
    "crescent": _crescent,
    "lemon": _lemon,
    "long": _long,
    "lump": _lump,
    "pear": _pear,
    "tomato": _ball,
}


def _cut(rgb: Picture, mask: Picture) -> tuple[Picture, Picture]:
    rows, columns = np.flatnonzero(mask.max(1) > 8), np.flatnonzero(mask.max(0) > 8)
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    half = (max(1, (columns[-1] - columns[0] + 1) // _OVER), max(1, (rows[-1] - rows[0] + 1) // _OVER))
    return cv2.resize(rgb[part], half, interpolation=cv2.INTER_AREA), cv2.resize(mask[part], half, interpolation=cv2.INTER_AREA)
