"""Measure how many barcodes can be read in degraded images.

Each image is drawn with produce, cartons, and one barcode of each symbology. Then it is degraded in one way, and the
barcodes are read. The strength of a blur is given in modules, so that the results are valid for any resolution. A
module is the width of the narrowest bar.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from shared import barcode_checks
from worker.vision import barcode
from worker.vision.imaging import encode_jpeg
from worker.vision.train import drawings
from worker.vision.train.drawings import Image, Rng

WIDTH: Final = 1280
HEIGHT: Final = 960
MODULE: Final = 2.4
"""Number of pixels per module, except in the degradation that varies this number."""
LINEAR: Final = ("EAN13", "EAN8", "UPCA", "UPCE", "Code128")
MATRIX: Final = ("QRCode", "DataMatrix")
SYMBOLOGIES: Final = LINEAR + MATRIX
_SUPERSAMPLING: Final = 4
"""Labels are drawn at this multiple of their size and then reduced, so that their edges look like edges in a photo."""
_BACKGROUNDS: Final = 8
_LETTERS: Final = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789-"
_DIGITS: Final = {"EAN13": 12, "EAN8": 7, "UPCA": 11}


@dataclass(frozen=True, slots=True)
class Code:
    """The content of a barcode.

    ``text`` is the text that a reader returns. ``declared`` is a text that a client can declare for the barcode.
    ``other`` is the text of a different valid barcode, which differs in one character. It is used to count wrong
    matches, because it must not match the barcode.
    """

    symbology: str
    text: str
    declared: str
    other: str


@dataclass(frozen=True, slots=True)
class DrawnCode:
    """A barcode that was drawn on an image.

    ``corners`` ``[4, 2]`` are the corners of the rectangle that its bars or modules fill, in pixels of the image.
    """

    code: Code
    corners: NDArray[np.float64]

    @property
    def box(self) -> list[float]:
        """The axis-aligned bounding box of the corners: x1, y1, x2, y2 in pixels."""
        return [*self.corners.min(0).tolist(), *self.corners.max(0).tolist()]


@dataclass(slots=True)
class ReadRate:
    """The results for one degradation at one strength.

    ``images`` is the number of images, each of which contains one barcode of every symbology. For each symbology,
    ``read`` is the number of barcodes that were read, and ``matched`` is the number of barcodes that gave the result
    ``match`` when they were declared. ``wrong`` is the number of texts that were read but not drawn. ``wrong_matches``
    is the number of results ``match`` for declared barcodes that are not in the image.
    """

    degradation: str
    strength: str
    images: int
    read: Counter[str] = field(default_factory=Counter)
    matched: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    wrong_matches: int = 0


Pose = Callable[[Rng], NDArray[np.float64]]
Degrade = Callable[[Image, list[DrawnCode], Rng], Image]


def measure(count: int, seed: int) -> list[ReadRate]:
    """Measure the read rates for every strength of every degradation.

    :param count: number of images for each strength of each degradation.
    :param seed: random seed.
    """
    rng = np.random.default_rng(seed)
    backgrounds = [draw_scene(rng) for _ in range(min(count, _BACKGROUNDS))]
    return [
        _measure_strength(ReadRate(name, strength, count), pose, degrade, backgrounds, rng)
        for name, strength, pose, degrade in _DEGRADATIONS
    ]


def format_table(rates: list[ReadRate]) -> str:
    """Format the rates as a Markdown table."""
    lines = [
        "| degradation | strength | linear read | matrix read | match | wrong reads | wrong matches |",
        "|---|---|---|---|---|---|---|",
    ]
    for rate in rates:
        linear, matrix = (sum(rate.read[name] for name in names) / len(names) for names in (LINEAR, MATRIX))
        matched = rate.matched.total() / len(SYMBOLOGIES)
        shares = " | ".join(f"{mean / rate.images:.2f}" for mean in (linear, matrix, matched))
        lines.append(f"| {rate.degradation} | {rate.strength} | {shares} | {rate.wrong} | {rate.wrong_matches} |")
    return "\n".join(lines)


def random_code(symbology: str, rng: Rng) -> Code:
    """Generate a random barcode with valid check digits."""
    content = _random_content(symbology, rng)
    position = int(rng.integers(1, len(content)))
    alphabet = "0123456789" if content.isdigit() else _LETTERS
    changed = alphabet[(alphabet.index(content[position]) + 1) % len(alphabet)]
    text, declared = _spell(symbology, content, rng)
    _, other = _spell(symbology, content[:position] + changed + content[position + 1 :], rng)
    return Code(symbology, text, declared, other)


def draw_scene(rng: Rng) -> Image:
    """Draw the background on which labels are pasted: a shelf with produce and cartons, RGB ``[HEIGHT, WIDTH, 3]``."""
    scene = drawings.draw_background(WIDTH, HEIGHT, rng)
    for _ in range(10):
        names = list(drawings.CARTONS if rng.random() < 0.4 else drawings.PRODUCE)
        name = names[rng.integers(len(names))]
        draw = drawings.draw_carton if name in drawings.CARTONS else drawings.draw_produce
        piece, mask = draw(name, int(rng.uniform(150, 350)), rng)
        height, width = mask.shape
        drawings.paste(scene, piece, mask, int(rng.integers(WIDTH - width)), int(rng.integers(HEIGHT - height)))
    return scene


def paste_label(scene: Image, code: Code, pose: NDArray[np.float64], centre: tuple[float, float]) -> DrawnCode:
    """Paste a label with a barcode on a scene, in place.

    :param pose: 3x3 matrix that maps modules relative to the label's centre to pixels relative to ``centre``.
    :param centre: x and y of the label's centre in pixels of the scene.
    """
    symbol = _symbol(code)
    height, width = symbol.shape
    to_middle = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    placement = np.array([[1, 0, centre[0]], [0, 1, centre[1]], [0, 0, 1]]) @ pose @ to_middle
    corners = _project(placement, 0, 0, width, height)
    left, top = np.floor(corners.min(0)).astype(int)
    right, bottom = np.ceil(corners.max(0)).astype(int)
    # The matrices map supersampled pixels of the symbol to modules, and pixels of the scene to supersampled pixels of
    # the part of the scene under the label. The offsets of 0.5 are necessary because OpenCV's origin is the centre of
    # the first pixel.
    over = _SUPERSAMPLING
    to_modules = np.array([[1 / over, 0, 0.5 / over], [0, 1 / over, 0.5 / over], [0, 0, 1]])
    to_part = np.array([[over, 0, -left * over - 0.5], [0, over, -top * over - 0.5], [0, 0, 1]])
    fine = np.kron(symbol, np.ones((over, over), np.uint8))
    size = (int(right - left), int(bottom - top))
    fine_size = (size[0] * over, size[1] * over)
    ink = cv2.warpPerspective(fine, to_part @ placement @ to_modules, fine_size, borderValue=255)
    mask = cv2.warpPerspective(np.full_like(fine, 255), to_part @ placement @ to_modules, fine_size)
    ink, mask = (cv2.resize(layer, size, interpolation=cv2.INTER_AREA) for layer in (ink, mask))
    drawings.paste(scene, cv2.cvtColor(ink, cv2.COLOR_GRAY2RGB), mask, int(left), int(top))
    return DrawnCode(code, _project(placement, *_extent(symbol, code.symbology)))


def rotation_pose(degrees: float, module: float = MODULE) -> NDArray[np.float64]:
    """Return the pose (see ``paste_label``) of a label that faces the camera and is rotated clockwise by ``degrees``.

    :param module: width of a module in pixels.
    """
    cos, sin = np.cos(np.radians(degrees)) * module, np.sin(np.radians(degrees)) * module
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _tilt_pose(degrees: float) -> NDArray[np.float64]:
    """Return the pose (see ``paste_label``) of a label that is rotated by ``degrees`` about its vertical axis.

    The label is 300 modules away from a pinhole camera.
    """
    angle = np.radians(degrees)
    pose: NDArray[np.float64] = rotation_pose(0) @ np.array([[np.cos(angle), 0, 0], [0, 1, 0], [np.sin(angle) / 300, 0, 1]])
    return pose


def _measure_strength(rate: ReadRate, pose: Pose, degrade: Degrade, backgrounds: list[Image], rng: Rng) -> ReadRate:
    for _ in range(rate.images):
        scene = backgrounds[rng.integers(len(backgrounds))].copy()
        drawn = []
        for symbology, cell in zip(SYMBOLOGIES, rng.permutation(9), strict=False):  # cells of a 3 x 3 grid
            x = (cell % 3 + 0.5) * WIDTH / 3 + rng.uniform(-40, 40)
            y = HEIGHT / 2 + (cell // 3 - 1) * 315 + rng.uniform(-1, 1)
            drawn.append(paste_label(scene, random_code(symbology, rng), pose(rng), (x, y)))
        found = barcode.read(degrade(scene, drawn, rng))
        texts = {result["text"] for result in found}
        rate.wrong += len(texts - {label.code.text for label in drawn})
        for code in (label.code for label in drawn):
            rate.read[code.symbology] += code.text in texts
            rate.matched[code.symbology] += barcode_checks.check(code.declared, found) == "match"
            rate.wrong_matches += barcode_checks.check(code.other, found) == "match"
    return rate


def _random_content(symbology: str, rng: Rng) -> str:
    """Generate the random text that a barcode encodes, without a check digit."""
    if symbology in _DIGITS:
        return "".join(str(digit) for digit in rng.integers(10, size=_DIGITS[symbology]))
    if symbology == "UPCE":
        # The digits are 5 to 8 because 0 to 4 are special cases of zero suppression. ``random_code`` increases one of
        # the digits by one, and 9 is no special case either.
        return "0" + "".join(str(digit) for digit in rng.integers(5, 9, size=6))
    size = 6 if symbology == "Code128" else 16
    return "".join(_LETTERS[number] for number in rng.integers(len(_LETTERS), size=size))


def _spell(symbology: str, content: str, rng: Rng) -> tuple[str, str]:
    """Return the text that a reader returns for a barcode, and a spelling with which a client can declare the barcode.

    A UPC-A is declared either as UPC-A or as EAN-13, and a UPC-E is declared as it is printed.
    """
    text, _ = barcode.render(content, symbology)
    if symbology == "UPCE":
        return text, content + text[-1]
    if symbology == "UPCA":
        return text, text.zfill(13) if rng.random() < 0.5 else text[-12:]
    return text, text


def _symbol(code: Code) -> Image:
    """Draw a barcode with its quiet zones and one pixel per module, ``[H, W]``."""
    content = code.text
    if code.symbology == "UPCE":
        content = code.declared[:7]
    elif code.symbology == "UPCA":
        content = code.text[-12:]
    _, symbol = barcode.render(content, code.symbology)
    bordered: Image = cv2.copyMakeBorder(symbol, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=255)
    return bordered


def _extent(symbol: Image, symbology: str) -> tuple[float, float, float, float]:
    """Return the rectangle x1, y1, x2, y2 that a symbol's modules fill, in pixels of the symbol.

    In some linear codes, some bars are longer than the others. The rectangle does not include their lower ends.
    """
    dark = symbol < 128
    inked = dark.sum(1)
    rows = np.flatnonzero(inked > (0.4 * inked.max() if symbology in LINEAR else 0))
    columns = np.flatnonzero(dark.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _project(matrix: NDArray[np.float64], x1: float, y1: float, x2: float, y2: float) -> NDArray[np.float64]:
    """Map the corners of a rectangle with a homography ``[3, 3]``, and return the mapped corners ``[4, 2]``."""
    mapped = matrix @ np.array([[x1, y1, 1], [x2, y1, 1], [x2, y2, 1], [x1, y2, 1]]).T
    corners: NDArray[np.float64] = (mapped[:2] / mapped[2]).T
    return corners


def _upright(_rng: Rng) -> NDArray[np.float64]:
    return rotation_pose(0)


def _clean(scene: Image, _drawn: list[DrawnCode], _rng: Rng) -> Image:
    return scene


def _rotate(min_degrees: float, max_degrees: float) -> Pose:
    def pose(rng: Rng) -> NDArray[np.float64]:
        quarters = int(rng.integers(4))
        return rotation_pose(90 * quarters + float(rng.choice([-1, 1]) * rng.uniform(min_degrees, max_degrees)))

    return pose


def _tilt(degrees: float) -> Pose:
    return lambda rng: _tilt_pose(float(rng.choice([-1, 1])) * degrees)


def _small(module: float) -> Pose:
    return lambda _rng: rotation_pose(0, module)


def _blur(modules: float) -> Degrade:
    return lambda scene, _drawn, _rng: cv2.GaussianBlur(scene, (0, 0), modules * MODULE)


def _motion(modules: float) -> Degrade:
    def degrade(scene: Image, _drawn: list[DrawnCode], rng: Rng) -> Image:
        """Blur a scene as a moving camera does, by averaging the pixels along a line with a random direction.

        The kernel is drawn at eight times its final size and then reduced, so that its line has smooth edges.
        """
        half, angle = modules * MODULE / 2, rng.uniform(0, np.pi)
        side = 2 * int(np.ceil(half)) + 3
        fine = np.zeros((side * 8, side * 8), np.float32)
        along = np.array([np.cos(angle), np.sin(angle)]) * half * 8
        start, end = ((side * 8 - 1) / 2 - along).round().astype(int), ((side * 8 - 1) / 2 + along).round().astype(int)
        cv2.line(fine, start.tolist(), end.tolist(), 1.0)
        kernel = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)
        blurred: Image = cv2.filter2D(scene, -1, kernel / kernel.sum())
        return blurred

    return degrade


def _glare(share: float) -> Degrade:
    def degrade(scene: Image, drawn: list[DrawnCode], rng: Rng) -> Image:
        """Draw the reflection of a lamp on each barcode: a blurred ellipse with ``share`` of the barcode's area."""
        light = np.zeros(scene.shape[:2], np.float32)
        for label in drawn:
            x1, y1, x2, y2 = label.box
            width, height = x2 - x1, y2 - y1
            ratio = rng.uniform(0.6, 1.6)
            axes = (
                int(np.sqrt(share * width * height / np.pi * ratio)),
                int(np.sqrt(share * width * height / np.pi / ratio)),
            )
            centre = (int(rng.uniform(x1, x2)), int(rng.uniform(y1, y2)))
            cv2.ellipse(light, centre, axes, float(rng.uniform(0, 180)), 0, 360, 400.0, -1)
        lit: Image = cv2.add(scene, cv2.GaussianBlur(light, (0, 0), 3)[..., None].repeat(3, 2), dtype=cv2.CV_8U)
        return lit

    return degrade


def _dark(gain: float, sigma: float) -> Degrade:
    def degrade(scene: Image, _drawn: list[DrawnCode], rng: Rng) -> Image:
        grain = rng.standard_normal(scene.shape, np.float32) * sigma
        darkened: Image = cv2.addWeighted(scene, gain, grain, 1, 0, dtype=cv2.CV_8U)
        return darkened

    return degrade


def _jpeg(quality: int) -> Degrade:
    def degrade(scene: Image, _drawn: list[DrawnCode], _rng: Rng) -> Image:
        decoded = cv2.imdecode(np.frombuffer(encode_jpeg(scene, quality), np.uint8), cv2.IMREAD_COLOR)
        compressed: Image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        return compressed

    return degrade


_DEGRADATIONS: Final[list[tuple[str, str, Pose, Degrade]]] = [
    ("none", "-", _upright, _clean),
    *[("blur", f"sigma {modules} modules", _upright, _blur(modules)) for modules in (0.4, 0.6, 0.8)],
    *[("motion blur", f"{modules} modules", _upright, _motion(modules)) for modules in (1, 2, 3)],
    *[("tilt", f"{degrees} degrees", _tilt(degrees), _clean) for degrees in (30, 45, 60)],
    *[("rotation", f"{start} to {start + 15} degrees off an axis", _rotate(start, start + 15), _clean) for start in (0, 15, 30)],
    *[("glare", f"{share:.0%} of the code", _upright, _glare(share)) for share in (0.1, 0.2, 0.4)],
    *[
        ("low light", f"gain {gain}, noise {sigma}", _upright, _dark(gain, sigma))
        for gain, sigma in ((0.3, 4), (0.2, 6), (0.1, 8))
    ],
    *[("JPEG", f"quality {quality}", _upright, _jpeg(quality)) for quality in (30, 15, 5)],
    *[("small", f"{module} pixels a module", _small(module), _clean) for module in (1.5, 1.2, 1.0)],
]
