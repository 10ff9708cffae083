"""Reading barcodes, and comparing them with the declared one."""

import re
from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.vision.imaging import Rgb

_NAMES: Final = {"EAN13": "EAN-13", "EAN8": "EAN-8", "UPCA": "UPC-A", "UPCE": "UPC-E", "Code128": "Code 128", "QRCode": "QR Code", "DataMatrix": "Data Matrix"}  # fmt: skip
_RETAIL: Final = frozenset({"EAN-13", "EAN-8", "UPC-A"})
_UPC_E: Final = re.compile("[01][0-9]{7}")
_SHORTENED: Final = re.compile("00[01]([0-9]{2}[012]0{4}[0-9]{3}|[0-9]{3}0{5}[0-9]{2}|[0-9]{4}0{5}[0-9]|[0-9]{5}0{4}[5-9])[0-9]")
"""Fourteen digits for which a UPC-E can stand (GS1 General Specifications, 5.2.2.4.2)."""
_LINEAR: Final = ("EAN13", "EAN8", "UPCA", "UPCE", "Code128")
_MOST: Final = 50
_PATCHES: Final = 20
_OVER: Final = 2
"""How much larger a patch is read than it is: bars of one and a half pixels are then told apart."""
_PATCH_SIDE: Final = 1200
"""Pixels of a patch's longer side at the most, so that a large picture costs no more."""


@dataclass(frozen=True, slots=True)
class _Code:
    """What was read, with the corners ``[4, 2]`` in pixels of the picture."""

    format: str
    text: str
    corners: NDArray[np.float32]

    @property
    def area(self) -> float:
        """Give how many pixels it covers."""
        return float(cv2.contourArea(self.corners))

    def covers(self, other: "_Code") -> bool:
        """Tell whether the middle of another reading lies on this one."""
        return bool(cv2.pointPolygonTest(self.corners, other.corners.mean(0).tolist(), measureDist=False) >= 0)


def read(rgb: Rgb) -> list[dict[str, Any]]:
    """Find the barcodes of a picture: EAN, UPC, Code 128, QR, Data Matrix; several, turned, with their upright boxes.

    ZXing scans along rows and columns, which misses bars that are far off both and sees but a part of others. So what looks
    like bars is also cut out, turned straight and read by itself.

    :returns: the largest first.
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    seen = _decoded(grey, tuple(_NAMES))
    for turn, size in _bars(grey):
        back = cv2.invertAffineTransform(turn)
        patch = cv2.warpAffine(grey, turn, size, borderMode=cv2.BORDER_REPLICATE)
        seen += [replace(code, corners=cv2.transform(code.corners[None], back)[0]) for code in _decoded(patch, _LINEAR)]
    found: list[_Code] = []
    # One place holds one code. A few rows of a code may pass for another one (a UPC-E's check is weak), so the largest stands.
    for code in sorted(seen, key=lambda code: -code.area):
        if not any(larger.covers(code) for larger in found):
            found.append(code)
    high, wide = grey.shape
    return [{"format": code.format, "text": code.text, "box": _upright(code.corners, wide, high)} for code in found[:_MOST]]


def rendered(content: str, symbology: str, scale: int = 1) -> tuple[str, NDArray[np.uint8]]:
    """Write a barcode.

    :param symbology: zxing-cpp's name of it, as ``EAN13``.
    :returns: the text that a reader gives, and the symbol ``[height, width]``, black on white, a module ``scale`` pixels wide.
    """
    zxing = _zxing()
    made = zxing.create_barcode(content, getattr(zxing.BarcodeFormat, symbology))
    return str(made.text), np.array(made.to_image(scale=scale), np.uint8)


def _zxing() -> Any:
    import zxingcpp  # on first use: this is its one place

    return zxingcpp


def _decoded(grey: NDArray[np.uint8], names: tuple[str, ...]) -> list[_Code]:
    zxing = _zxing()
    found = []
    for code in zxing.read_barcodes(grey, formats=[getattr(zxing.BarcodeFormat, name) for name in names]):
        place = code.position
        corners = [place.top_left, place.top_right, place.bottom_right, place.bottom_left]
        name = str(code.format).rsplit(".", 1)[-1].replace(" ", "").replace("-", "")
        text = code.text.replace("\0", "")[:1000]
        found.append(
            _Code(_NAMES.get(name, name), text, np.array([[corner.x, corner.y] for corner in corners], np.float32))
        )
    return found


def _bars(grey: NDArray[np.uint8]) -> list[tuple[NDArray[np.float64], tuple[int, int]]]:
    """Find what looks like bars; for each, the 2x3 matrix and the size (width, height) of a patch in which they are upright."""
    _, rectangles = cv2.barcode.BarcodeDetector().detect(grey)
    patches = []
    for corners in rectangles[:_PATCHES] if rectangles is not None else []:
        centre, (wide, high), degrees = cv2.minAreaRect(corners)
        margin = min(wide, high) / 2  # the detector cuts off the ends, and the quiet zones have to be seen
        scale = min(_OVER, _PATCH_SIDE / (max(wide, high) + 2 * margin))
        size = (round(scale * (wide + 2 * margin)), round(scale * (high + 2 * margin)))
        turn = cv2.getRotationMatrix2D(centre, degrees, scale)
        turn[:, 2] += np.array(size) / 2 - centre
        patches.append((turn, size))
    return patches


def _upright(corners: NDArray[np.float32], wide: int, high: int) -> list[float]:
    """Give x1, y1, x2, y2 of the upright frame of corners ``[4, 2]``, within the picture."""
    inside = corners.clip(0, [wide, high])
    return [round(float(value), 1) for value in (*inside.min(0), *inside.max(0))]


def check(declared: str | None, found: list[dict[str, Any]]) -> str:
    """Compare what was declared with what was read.

    A few bars of another code may pass for a UPC-E, whose check is weak: it speaks against what was declared only where that could have been printed as one.

    :returns: ``not_declared``; ``match``; ``mismatch`` only when a retail code was read and none agrees; else ``not_read``.
    """
    if not declared:
        return "not_declared"
    if any(_agrees(declared, code) for code in found):
        return "match"
    bare = _bare(declared)
    telling = _RETAIL | {"UPC-E"} if _UPC_E.fullmatch(bare) or _SHORTENED.fullmatch(bare.zfill(14)) else _RETAIL
    return "mismatch" if any(code["format"] in telling for code in found) else "not_read"


def _agrees(declared: str, code: dict[str, Any]) -> bool:
    return _same_form(code["text"]) in _forms(declared, code["format"])


def _forms(declared: str, read_as: str) -> set[str]:
    """Give what a code of that format may read where this was declared: a UPC-E is read as the UPC-A that it shortens."""
    bare = _bare(declared)
    forms = {_same_form(declared)}
    if _UPC_E.fullmatch(bare) and (read_as == "UPC-E" or not _has_check_digit(bare)):  # else the eight digits are those of an EAN-8
        forms.add(_same_form(_expanded(bare)))
    return forms


def _expanded(short: str) -> str:
    """Write out the UPC-A that a UPC-E of 8 digits shortens (GS1 General Specifications, 5.2.2.4.2)."""
    system, digits, last, check = short[0], short[1:6], short[6], short[7]
    if last in "012":
        return f"{system}{digits[:2]}{last}0000{digits[2:]}{check}"
    if last in "34":
        kept = int(last)
        return f"{system}{digits[:kept]}{'0' * 5}{digits[kept:]}{check}"
    return f"{system}{digits}0000{last}{check}"


def _same_form(text: str) -> str:
    """Write a GTIN with 14 digits (a UPC-A is an EAN-13 with a leading zero); leave anything else as it is."""
    bare = _bare(text)
    if bare.isascii() and bare.isdigit() and len(bare) in {8, 12, 13, 14} and _has_check_digit(bare):
        return bare.zfill(14)
    return text.strip()


def _bare(text: str) -> str:
    """Leave out what is printed between the digits."""
    return text.strip().replace(" ", "").replace("-", "")


def _has_check_digit(digits: str) -> bool:
    """Check a GTIN's last digit (GS1 General Specifications, 7.9)."""
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(reversed(digits)))
    return total % 10 == 0
