"""How many barcodes are read when pictures are as cameras take them: codes drawn, degraded one way at a time, and read.

Each picture holds one code of each symbology among produce and cartons; what the degradations do is measured in modules (the
width of the narrowest bar), so that the figures hold for any resolution.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.vision import barcode
from worker.vision.imaging import encode_jpeg
from worker.vision.train import drawings
from worker.vision.train.drawings import Picture, Rng

WIDTH: Final = 1280
HEIGHT: Final = 960
MODULE: Final = 2.4
"""Pixels of a module, unless its size is the matter."""
LINEAR: Final = ("EAN13", "EAN8", "UPCA", "UPCE", "Code128")
MATRIX: Final = ("QRCode", "DataMatrix")
SYMBOLOGIES: Final = LINEAR + MATRIX
_OVER: Final = 4  # drawn at so many times the size, then reduced: edges as a sensor sees them
_GROUNDS: Final = 8
_LETTERS: Final = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789-"
_DIGITS: Final = {"EAN13": 12, "EAN8": 7, "UPCA": 11}


@dataclass(frozen=True, slots=True)
class Code:
    """What is on a label.

    ``text`` is what a reader gives, ``declared`` a way to write it, ``other`` another valid code that differs in one place.
    """

    symbology: str
    text: str
    declared: str
    other: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A code in a picture, with the corners ``[4, 2]`` of its bars or modules in pixels."""

    code: Code
    corners: NDArray[np.float64]

    @property
    def box(self) -> list[float]:
        """Give the upright box: x1, y1, x2, y2."""
        return [*self.corners.min(0).tolist(), *self.corners.max(0).tolist()]


@dataclass(slots=True)
class Rate:
    """What became of the codes of one degradation in one strength; each of ``pictures`` holds every symbology once.

    ``read`` and ``matched`` count, by symbology, the codes that were read and the verdicts ``match`` for the code that is there;
    ``wrong`` the texts that were read and not drawn; ``wrong_matches`` the verdicts ``match`` for a code that is not there.
    """

    degradation: str
    strength: str
    pictures: int
    read: Counter[str] = field(default_factory=Counter)
    matched: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    wrong_matches: int = 0


Pose = Callable[[Rng], NDArray[np.float64]]
Spoil = Callable[[Picture, list[Drawn], Rng], Picture]


def read_rates(count: int, seed: int) -> list[Rate]:
    """Draw ``count`` pictures for every strength of every degradation, with all symbologies in each, and read them."""
    rng = np.random.default_rng(seed)
    grounds = [ground(rng) for _ in range(min(count, _GROUNDS))]
    return [
        _rate(Rate(name, strength, count), pose, spoil, grounds, rng) for name, strength, pose, spoil in _DEGRADATIONS
    ]


def table(rates: list[Rate]) -> str:
    """Write the rates as a table of Markdown."""
    lines = [
        "| degradation | strength | linear read | matrix read | match | wrong reads | wrong matches |",
        "|---|---|---|---|---|---|---|",
    ]
    for rate in rates:
        linear, matrix = (sum(rate.read[name] for name in kind) / len(kind) for kind in (LINEAR, MATRIX))
        matched = rate.matched.total() / len(SYMBOLOGIES)
        shares = " | ".join(f"{mean / rate.pictures:.2f}" for mean in (linear, matrix, matched))
        lines.append(f"| {rate.degradation} | {rate.strength} | {shares} | {rate.wrong} | {rate.wrong_matches} |")
    return "\n".join(lines)


def random_code(symbology: str, rng: Rng) -> Code:
    """Make up a code with valid check digits."""
    content = _content(symbology, rng)
    at = int(rng.integers(1, len(content)))
    letters = "0123456789" if content.isdigit() else _LETTERS
    changed = letters[(letters.index(content[at]) + 1) % len(letters)]
    text, declared = _spelled(symbology, content, rng)
    _, other = _spelled(symbology, content[:at] + changed + content[at + 1 :], rng)
    return Code(symbology, text, declared, other)


def ground(rng: Rng) -> Picture:
    """Draw what lies around the labels: a shelf with produce and cartons, ``[HEIGHT, WIDTH, 3]``."""
    scene = drawings.backdrop(WIDTH, HEIGHT, rng)
    for _ in range(10):
        names = list(drawings.CARTONS if rng.random() < 0.4 else drawings.PRODUCE)
        name = names[rng.integers(len(names))]
        piece, mask = (drawings.carton if name in drawings.CARTONS else drawings.produce)(name, int(rng.uniform(150, 350)), rng)
        high, wide = mask.shape
        drawings.paste(scene, piece, mask, int(rng.integers(WIDTH - wide)), int(rng.integers(HEIGHT - high)))
    return scene


def label(scene: Picture, code: Code, pose: NDArray[np.float64], centre: tuple[float, float]) -> Drawn:
    """Stick a label on a scene.

    :param pose: 3x3, from modules about the label's middle to pixels about ``centre``.
    """
    symbol = _symbol(code)
    high, wide = symbol.shape
    to_middle = np.array([[1, 0, -wide / 2], [0, 1, -high / 2], [0, 0, 1]])
    place = np.array([[1, 0, centre[0]], [0, 1, centre[1]], [0, 0, 1]]) @ pose @ to_middle
    edge = _project(place, 0, 0, wide, high)
    left, top = np.floor(edge.min(0)).astype(int)
    right, bottom = np.ceil(edge.max(0)).astype(int)
    # From fine pixels of the symbol to fine pixels of the part; OpenCV counts both from the first one's centre.
    to_modules = np.array([[1 / _OVER, 0, 0.5 / _OVER], [0, 1 / _OVER, 0.5 / _OVER], [0, 0, 1]])
    to_part = np.array([[_OVER, 0, -left * _OVER - 0.5], [0, _OVER, -top * _OVER - 0.5], [0, 0, 1]])
    fine = np.kron(symbol, np.ones((_OVER, _OVER), np.uint8))
    size = (int(right - left), int(bottom - top))
    over = (size[0] * _OVER, size[1] * _OVER)
    ink = cv2.warpPerspective(fine, to_part @ place @ to_modules, over, borderValue=255)
    mask = cv2.warpPerspective(np.full_like(fine, 255), to_part @ place @ to_modules, over)
    ink, mask = (cv2.resize(layer, size, interpolation=cv2.INTER_AREA) for layer in (ink, mask))
    drawings.paste(scene, cv2.cvtColor(ink, cv2.COLOR_GRAY2RGB), mask, int(left), int(top))
    return Drawn(code, _project(place, *_extent(symbol, code.symbology)))


def turned(degrees: float, module: float = MODULE) -> NDArray[np.float64]:
    """Give the pose of a label that faces the camera, turned clockwise."""
    cos, sin = np.cos(np.radians(degrees)) * module, np.sin(np.radians(degrees)) * module
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _tilted(degrees: float) -> NDArray[np.float64]:
    """Give the pose of a label that is turned away about its upright axis, 300 modules before a pinhole camera."""
    angle = np.radians(degrees)
    pose: NDArray[np.float64] = turned(0) @ np.array([[np.cos(angle), 0, 0], [0, 1, 0], [np.sin(angle) / 300, 0, 1]])
    return pose


def _rate(rate: Rate, pose: Pose, spoil: Spoil, grounds: list[Picture], rng: Rng) -> Rate:
    for _ in range(rate.pictures):
        scene = grounds[rng.integers(len(grounds))].copy()
        drawn = []
        for symbology, cell in zip(SYMBOLOGIES, rng.permutation(9), strict=False):  # of a grid of 3 x 3
            x = (cell % 3 + 0.5) * WIDTH / 3 + rng.uniform(-40, 40)
            y = HEIGHT / 2 + (cell // 3 - 1) * 315 + rng.uniform(-1, 1)
            drawn.append(label(scene, random_code(symbology, rng), pose(rng), (x, y)))
        found = barcode.read(spoil(scene, drawn, rng))
        texts = {one["text"] for one in found}
        rate.wrong += len(texts - {one.code.text for one in drawn})
        for code in (one.code for one in drawn):
            rate.read[code.symbology] += code.text in texts
            rate.matched[code.symbology] += barcode.check(code.declared, found) == "match"
            rate.wrong_matches += barcode.check(code.other, found) == "match"
    return rate


def _content(symbology: str, rng: Rng) -> str:
    """Make up what is encoded, without a check digit."""
    if symbology in _DIGITS:
        return "".join(str(digit) for digit in rng.integers(10, size=_DIGITS[symbology]))
    if symbology == "UPCE":  # digits for which the suppression of zeros knows no exception, one higher included
        return "0" + "".join(str(digit) for digit in rng.integers(5, 9, size=6))
    return "".join(_LETTERS[at] for at in rng.integers(len(_LETTERS), size=6 if symbology == "Code128" else 16))


def _spelled(symbology: str, content: str, rng: Rng) -> tuple[str, str]:
    """Give the text that a reader gives, and a way to declare it: a UPC-A as such or as an EAN-13, a UPC-E as printed."""
    text, _ = barcode.render(content, symbology)
    if symbology == "UPCE":
        return text, content + text[-1]
    if symbology == "UPCA":
        return text, text.zfill(13) if rng.random() < 0.5 else text[-12:]
    return text, text


def _symbol(code: Code) -> Picture:
    """Draw a code with its quiet zones, one pixel a module: ``[H, W]``."""
    content = (
        code.declared[:7] if code.symbology == "UPCE" else code.text[-12:] if code.symbology == "UPCA" else code.text
    )
    _, symbol = barcode.render(content, code.symbology)
    return cv2.copyMakeBorder(symbol, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=255)  # type: ignore[no-any-return]


def _extent(symbol: Picture, symbology: str) -> tuple[float, float, float, float]:
    """Find x1, y1, x2, y2 of a symbol's modules; bars that stick out below the others do not count."""
    dark = symbol < 128
    inked = dark.sum(1)
    rows = np.flatnonzero(inked > (0.4 * inked.max() if symbology in LINEAR else 0))
    columns = np.flatnonzero(dark.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _project(matrix: NDArray[np.float64], x1: float, y1: float, x2: float, y2: float) -> NDArray[np.float64]:
    """Map a rectangle's corners: ``[4, 2]``."""
    moved = matrix @ np.array([[x1, y1, 1], [x2, y1, 1], [x2, y2, 1], [x1, y2, 1]]).T
    corners: NDArray[np.float64] = (moved[:2] / moved[2]).T
    return corners


def _upright(_rng: Rng) -> NDArray[np.float64]:
    return turned(0)


def _clean(scene: Picture, _drawn: list[Drawn], _rng: Rng) -> Picture:
    return scene


def _turn(least: float, most: float) -> Pose:
    return lambda rng: turned(90 * int(rng.integers(4)) + float(rng.choice([-1, 1]) * rng.uniform(least, most)))


def _tilt(degrees: float) -> Pose:
    return lambda rng: _tilted(float(rng.choice([-1, 1])) * degrees)


def _small(module: float) -> Pose:
    return lambda _rng: turned(0, module)


def _blur(modules: float) -> Spoil:
    return lambda scene, _drawn, _rng: cv2.GaussianBlur(scene, (0, 0), modules * MODULE)


def _motion(modules: float) -> Spoil:
    def spoil(scene: Picture, _drawn: list[Drawn], rng: Rng) -> Picture:
        """Average along a line, drawn at eight times the size."""
        half, angle = modules * MODULE / 2, rng.uniform(0, np.pi)
        side = 2 * int(np.ceil(half)) + 3
        fine = np.zeros((side * 8, side * 8), np.float32)
        along = np.array([np.cos(angle), np.sin(angle)]) * half * 8
        start, end = ((side * 8 - 1) / 2 - along).round().astype(int), ((side * 8 - 1) / 2 + along).round().astype(int)
        cv2.line(fine, start.tolist(), end.tolist(), 1.0)
        kernel = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)
        return cv2.filter2D(scene, -1, kernel / kernel.sum())  # type: ignore[no-any-return]

    return spoil


def _glare(share: float) -> Spoil:
    def spoil(scene: Picture, drawn: list[Drawn], rng: Rng) -> Picture:
        """Put a lamp's reflection on each code: a soft ellipse that covers ``share`` of its area."""
        light = np.zeros(scene.shape[:2], np.float32)
        for one in drawn:
            x1, y1, x2, y2 = one.box
            wide, high = x2 - x1, y2 - y1
            ratio = rng.uniform(0.6, 1.6)
            axes = (
                int(np.sqrt(share * wide * high / np.pi * ratio)),
                int(np.sqrt(share * wide * high / np.pi / ratio)),
            )
            centre = (int(rng.uniform(x1, x2)), int(rng.uniform(y1, y2)))
            cv2.ellipse(light, centre, axes, float(rng.uniform(0, 180)), 0, 360, 400.0, -1)
        return cv2.add(scene, cv2.GaussianBlur(light, (0, 0), 3)[..., None].repeat(3, 2), dtype=cv2.CV_8U)  # type: ignore[no-any-return]

    return spoil


def _dark(gain: float, sigma: float) -> Spoil:
    def spoil(scene: Picture, _drawn: list[Drawn], rng: Rng) -> Picture:
        grain = rng.standard_normal(scene.shape, np.float32) * sigma
        return cv2.addWeighted(scene, gain, grain, 1, 0, dtype=cv2.CV_8U)  # type: ignore[no-any-return]

    return spoil


def _jpeg(quality: int) -> Spoil:
    def spoil(scene: Picture, _drawn: list[Drawn], _rng: Rng) -> Picture:
        read = cv2.imdecode(np.frombuffer(encode_jpeg(scene, quality), np.uint8), cv2.IMREAD_COLOR)
        return cv2.cvtColor(read, cv2.COLOR_BGR2RGB)  # type: ignore[no-any-return]

    return spoil


_DEGRADATIONS: Final[list[tuple[str, str, Pose, Spoil]]] = [
    ("none", "-", _upright, _clean),
    *[("blur", f"sigma {modules} modules", _upright, _blur(modules)) for modules in (0.4, 0.6, 0.8)],
    *[("motion blur", f"{modules} modules", _upright, _motion(modules)) for modules in (1, 2, 3)],
    *[("tilt", f"{degrees} degrees", _tilt(degrees), _clean) for degrees in (30, 45, 60)],
    *[("rotation", f"{at} to {at + 15} degrees off an axis", _turn(at, at + 15), _clean) for at in (0, 15, 30)],
    *[("glare", f"{share:.0%} of the code", _upright, _glare(share)) for share in (0.1, 0.2, 0.4)],
    *[
        ("low light", f"gain {gain}, noise {sigma}", _upright, _dark(gain, sigma))
        for gain, sigma in ((0.3, 4), (0.2, 6), (0.1, 8))
    ],
    *[("JPEG", f"quality {quality}", _upright, _jpeg(quality)) for quality in (30, 15, 5)],
    *[("small", f"{module} pixels a module", _small(module), _clean) for module in (1.5, 1.2, 1.0)],
]
