"""Draw produce and cartons. The project uses these drawings in its sample images and as a part of its training data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Rng = np.random.Generator
Colour = tuple[int, int, int]

_SUPERSAMPLING: Final = 2  # produce is drawn at twice its size and then reduced, so that its edges are smooth


@dataclass(frozen=True, slots=True)
class ProduceStyle:
    """The shape and the colours with which a kind of produce is drawn."""

    shape: str
    colours: tuple[Colour, ...]
    stretch: float = 1.0


PRODUCE: Final[dict[str, ProduceStyle]] = {
    "Apple": ProduceStyle("apple", ((190, 30, 35), (120, 170, 40), (205, 60, 50))),
    "Banana": ProduceStyle("crescent", ((240, 210, 60), (225, 195, 40))),
    "Orange": ProduceStyle("ball", ((240, 140, 20), (235, 125, 10))),
    "Lemon": ProduceStyle("lemon", ((245, 220, 50), (250, 230, 80))),
    "Lime": ProduceStyle("lemon", ((90, 160, 40), (110, 175, 50))),
    "Tomato": ProduceStyle("tomato", ((215, 40, 25), (200, 30, 20))),
    "Cucumber": ProduceStyle("long", ((50, 110, 40), (60, 125, 50)), 4.0),
    "Carrots": ProduceStyle("cone", ((235, 120, 30), (240, 130, 40)), 3.2),
    "Aubergine": ProduceStyle("pear", ((60, 20, 70), (50, 15, 55)), 1.7),
    "Pear": ProduceStyle("pear", ((190, 200, 70), (170, 180, 60)), 1.4),
    "Plum": ProduceStyle("ball", ((90, 30, 80), (80, 25, 60)), 1.15),
    "Red-Beet": ProduceStyle("ball", ((110, 20, 50), (120, 25, 60))),
    "Onion": ProduceStyle("ball", ((200, 150, 80), (190, 135, 60)), 0.9),
    "Potato": ProduceStyle("lump", ((200, 170, 110), (185, 150, 95)), 1.3),
    "Kiwi": ProduceStyle("lump", ((120, 90, 50), (110, 80, 45)), 1.15),
}
CARTONS: Final[dict[str, tuple[Colour, Colour]]] = {
    "Milk": ((235, 240, 245), (40, 90, 180)),
    "Juice": ((250, 160, 40), (70, 140, 50)),
    "Yoghurt": ((245, 245, 240), (200, 60, 110)),
}


def draw_produce(label: str, size: int, rng: Rng) -> tuple[Image, Image]:
    """Draw one piece of produce.

    :param label: a key of ``PRODUCE``.
    :param size: maximum length of the longest side in pixels.
    :returns: RGB ``[H, W, 3]`` and a mask ``[H, W]`` (0 to 255), both cropped to the piece.
    """
    style = PRODUCE[label]
    canvas = size * _SUPERSAMPLING
    mask = np.zeros((canvas, canvas), np.uint8)
    centre = canvas // 2
    radius = int(canvas * 0.46)
    _SHAPES[style.shape](mask, centre, radius, style.stretch, rng)
    colour = np.array(style.colours[rng.integers(len(style.colours))], np.float32)
    rgb = _shade(mask, colour * rng.uniform(0.85, 1.1), rng)
    _draw_details(rgb, mask, style.shape, centre, radius, rng)
    rotation = cv2.getRotationMatrix2D((centre, centre), float(rng.uniform(-25, 25)), 1.0)
    rgb = cv2.warpAffine(rgb, rotation, (canvas, canvas))
    mask = cv2.warpAffine(mask, rotation, (canvas, canvas))
    return _crop_to_mask(rgb, mask)


def draw_carton(label: str, size: int, rng: Rng, code: Image | None = None) -> tuple[Image, Image]:
    """Draw a carton.

    :param label: a key of ``CARTONS``.
    :param size: height in pixels.
    :param code: the image of a barcode, which is drawn on the carton if it fits.
    :returns: RGB ``[H, W, 3]`` and a mask ``[H, W]`` (0 to 255).
    """
    height, width = size, int(size * 0.56)
    body, band = (np.array(colour, np.float32) * rng.uniform(0.92, 1.05) for colour in CARTONS[label])
    rgb = np.empty((height, width, 3), np.float32)
    rgb[:] = body
    rgb *= np.linspace(0.88, 1.06, width, dtype=np.float32)[None, :, None]
    top = int(height * 0.16)
    cv2.fillPoly(rgb, [np.array([[0, top], [width // 2, top // 3], [width, top]])], (body * 0.8).tolist())
    cv2.rectangle(rgb, (0, int(height * 0.3)), (width, int(height * 0.52)), band.tolist(), -1)
    cv2.circle(rgb, (width // 2, int(height * 0.66)), int(width * 0.2), (band * 0.9 + 20).tolist(), -1, cv2.LINE_AA)
    image: Image = np.clip(rgb, 0, 255).astype(np.uint8)
    position, scale = (int(width * 0.08), int(height * 0.44)), size / 330
    cv2.putText(image, label.upper(), position, cv2.FONT_HERSHEY_DUPLEX, scale, (255, 255, 255), max(1, size // 160), cv2.LINE_AA)
    if code is not None:
        code_height, code_width = code.shape[:2]
        left, base = (width - code_width) // 2, height - code_height - int(height * 0.03)
        if left >= 0 and base >= 0:
            image[base : base + code_height, left : left + code_width] = code
    mask = np.full((height, width), 255, np.uint8)
    mask[:top] = 0
    cv2.fillPoly(mask, [np.array([[0, top], [width // 2, top // 3], [width, top]])], 255)
    return image, mask


def draw_background(width: int, height: int, rng: Rng) -> Image:
    """Draw a background that resembles a shelf or a crate, RGB ``[height, width, 3]``."""
    base = np.array([rng.uniform(60, 210)] * 3) + rng.uniform(-25, 25, 3)
    rows = np.linspace(rng.uniform(0.7, 1.0), rng.uniform(0.9, 1.2), height, dtype=np.float32)[:, None, None]
    noise = rng.normal(0, 6, (height // 4 + 1, width // 4 + 1, 1)).astype(np.float32)
    grain = cv2.resize(noise, (width, height))[..., None]
    image = np.broadcast_to(base.astype(np.float32), (height, width, 3)) * rows + grain
    for line in range(int(rng.integers(2, 6))):
        y = int(height * (line + rng.uniform(0.2, 0.8)) / 5)
        image[y : y + max(2, height // 90)] *= 0.75
    drawn: Image = np.clip(image, 0, 255).astype(np.uint8)
    return drawn


def paste(scene: Image, piece: Image, mask: Image, x: int, y: int) -> None:
    """Paste a piece on a scene, in place, with the piece's top left corner at ``(x, y)``.

    The whole piece must be inside the scene.
    """
    height, width = mask.shape
    alpha = mask[..., None].astype(np.float32) / 255
    under = scene[y : y + height, x : x + width]
    scene[y : y + height, x : x + width] = (piece * alpha + under * (1 - alpha)).astype(np.uint8)


def _shade(mask: Image, colour: NDArray[np.float32], rng: Rng) -> Image:
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    depth = cv2.GaussianBlur(np.sqrt(depth / max(1.0, float(depth.max()))), (0, 0), mask.shape[0] / 60)
    grain = cv2.resize(rng.normal(0, 0.03, (mask.shape[0] // 6, mask.shape[1] // 6)).astype(np.float32), mask.shape[::-1])
    light = 0.55 + 0.6 * depth + grain
    rgb = light[..., None] * colour
    height = mask.shape[0]
    spot = (int(height * rng.uniform(0.36, 0.46)), int(height * rng.uniform(0.32, 0.42)))
    highlight = np.zeros(mask.shape, np.float32)
    cv2.circle(highlight, spot, int(height * 0.05), 70.0, -1)
    rgb += cv2.GaussianBlur(highlight, (0, 0), height / 28)[..., None]
    shaded: Image = np.clip(rgb, 0, 255).astype(np.uint8)
    return shaded


def _draw_details(rgb: Image, mask: Image, shape: str, centre: int, radius: int, rng: Rng) -> None:
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


def _ball(mask: Image, c: int, r: int, stretch: float, rng: Rng) -> None:
    axes = (int(r / max(1.0, stretch)), int(r * min(1.0, 1 / stretch) if stretch < 1 else r))
    cv2.ellipse(mask, (c, c), (max(4, axes[0]), max(4, axes[1])), float(rng.uniform(0, 20)), 0, 360, 255, -1, cv2.LINE_AA)


def _apple(mask: Image, c: int, r: int, _stretch: float, _rng: Rng) -> None:
    for side in (-1, 1):
        cv2.ellipse(mask, (int(c + side * r * 0.3), c), (int(r * 0.66), int(r * 0.86)), side * 8, 0, 360, 255, -1, cv2.LINE_AA)


def _lemon(mask: Image, c: int, r: int, _stretch: float, _rng: Rng) -> None:
    cv2.ellipse(mask, (c, c), (int(r * 0.82), int(r * 0.62)), 0, 0, 360, 255, -1, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.ellipse(mask, (int(c + side * r * 0.8), c), (int(r * 0.2), int(r * 0.16)), 0, 0, 360, 255, -1, cv2.LINE_AA)


def _crescent(mask: Image, c: int, r: int, _stretch: float, rng: Rng) -> None:
    width = float(rng.uniform(0.26, 0.34))
    angles = np.linspace(0.15 * np.pi, 0.85 * np.pi, 24)
    for step, angle in enumerate(angles):
        thick = int(r * width * np.sin(np.pi * (step + 3) / 29))
        cv2.circle(mask, (int(c + np.cos(angle) * r * 0.82), int(c - r * 0.45 + np.sin(angle) * r * 0.82)), max(3, thick), 255, -1)


def _long(mask: Image, c: int, r: int, stretch: float, _rng: Rng) -> None:
    half = int(r / stretch)
    cv2.line(mask, (c - r + half, c), (c + r - half, c), 255, 2 * half, cv2.LINE_AA)


def _cone(mask: Image, c: int, r: int, stretch: float, _rng: Rng) -> None:
    half = int(r / stretch)
    top = c - int(r * 0.7)
    cv2.fillPoly(mask, [np.array([[c - half, top], [c + half, top], [c, c + r]])], 255, cv2.LINE_AA)
    cv2.ellipse(mask, (c, top), (half, half // 2), 0, 0, 360, 255, -1, cv2.LINE_AA)


def _pear(mask: Image, c: int, r: int, stretch: float, _rng: Rng) -> None:
    half_width = int(r / stretch)
    cv2.ellipse(mask, (c, int(c + r - half_width * 1.05)), (half_width, half_width), 0, 0, 360, 255, -1, cv2.LINE_AA)
    cv2.ellipse(mask, (c, int(c - r * 0.25)), (int(half_width * 0.58), int(r * 0.72)), 0, 0, 360, 255, -1, cv2.LINE_AA)


def _lump(mask: Image, c: int, r: int, stretch: float, rng: Rng) -> None:
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    waves = 1 + 0.05 * np.sin(angles * 3 + rng.uniform(0, 6)) + 0.04 * np.sin(angles * 5 + rng.uniform(0, 6))
    points = np.stack([c + np.cos(angles) * r * 0.92 * waves, c + np.sin(angles) * r * 0.92 / stretch * waves], 1)
    cv2.fillPoly(mask, [points.astype(np.int32)], 255, cv2.LINE_AA)


_SHAPES: Final[dict[str, Callable[[Image, int, int, float, Rng], None]]] = {
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


def _crop_to_mask(rgb: Image, mask: Image) -> tuple[Image, Image]:
    rows, columns = np.flatnonzero(mask.max(1) > 8), np.flatnonzero(mask.max(0) > 8)
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    half = (max(1, (columns[-1] - columns[0] + 1) // _SUPERSAMPLING), max(1, (rows[-1] - rows[0] + 1) // _SUPERSAMPLING))
    return cv2.resize(rgb[part], half, interpolation=cv2.INTER_AREA), cv2.resize(mask[part], half, interpolation=cv2.INTER_AREA)
