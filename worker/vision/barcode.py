"""Read the barcodes in an image. ``shared.barcode_checks`` compares them with the barcode that was declared."""

from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.vision.imaging import Rgb

_FORMAT_NAMES: Final = {"EAN13": "EAN-13", "EAN8": "EAN-8", "UPCA": "UPC-A", "UPCE": "UPC-E", "Code128": "Code 128", "QRCode": "QR Code", "DataMatrix": "Data Matrix"}  # fmt: skip
_LINEAR_FORMATS: Final = ("EAN13", "EAN8", "UPCA", "UPCE", "Code128")
_MAX_BARCODES: Final = 50
_MAX_PATCHES: Final = 20
_PATCH_SCALE: Final = 2
"""Factor by which a patch is enlarged before reading, so that modules of 1.5 pixels can still be resolved."""
_MAX_PATCH_SIDE: Final = 1200
"""Limit for the longer side of a patch in pixels, so that patches of a large image do not take more time."""


@dataclass(frozen=True, slots=True)
class _Barcode:
    """A barcode that was read, with its corners ``[4, 2]``, float32, in pixels of the image."""

    format: str
    text: str
    corners: NDArray[np.float32]

    @property
    def area(self) -> float:
        """The area of the barcode in the image, in square pixels."""
        return float(cv2.contourArea(self.corners))

    def covers(self, other: "_Barcode") -> bool:
        """Return whether the centre of another barcode is inside this barcode."""
        return bool(cv2.pointPolygonTest(self.corners, other.corners.mean(0).tolist(), measureDist=False) >= 0)


def read(rgb: Rgb) -> list[dict[str, Any]]:
    """Read all barcodes in an image, at any rotation: EAN, UPC, Code 128, QR, and Data Matrix.

    ZXing scans along rows and columns. So it misses linear codes whose bars are neither nearly vertical nor nearly
    horizontal, and reads only a part of some other linear codes. Therefore, regions that look like bars are also cut
    out, rotated upright, and read one by one.

    :param rgb: ``[H, W, 3]``, uint8.
    :returns: ``{"format", "text", "box"}`` for at most 50 barcodes, the largest first. ``box`` is the axis-aligned
        bounding box x1, y1, x2, y2 in pixels.
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    candidates = _decode(grey, tuple(_FORMAT_NAMES))
    for matrix, size in _find_bars(grey):
        inverse = cv2.invertAffineTransform(matrix)
        patch = cv2.warpAffine(grey, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        candidates += [replace(code, corners=cv2.transform(code.corners[None], inverse)[0]) for code in _decode(patch, _LINEAR_FORMATS)]
    found: list[_Barcode] = []
    # There is only one barcode in one place. A few rows of it can be misread as another barcode, because the check
    # digit of a UPC-E is weak. So only the largest barcode in each place is kept.
    for code in sorted(candidates, key=lambda code: -code.area):
        if not any(larger.covers(code) for larger in found):
            found.append(code)
    height, width = grey.shape
    return [{"format": code.format, "text": code.text, "box": _bounding_box(code.corners, width, height)} for code in found[:_MAX_BARCODES]]


def render(content: str, symbology: str, scale: int = 1) -> tuple[str, NDArray[np.uint8]]:
    """Render a barcode.

    :param content: the text to encode.
    :param symbology: zxing-cpp's name for the symbology, for example ``EAN13``.
    :param scale: width of a module in pixels.
    :returns: the text that a reader returns for the barcode, and the image of the barcode ``[height, width]``, uint8,
        black on white.
    """
    zxing = _zxing()
    barcode = zxing.create_barcode(content, getattr(zxing.BarcodeFormat, symbology))
    return str(barcode.text), np.array(barcode.to_image(scale=scale), np.uint8)


def _zxing() -> Any:
    import zxingcpp  # zxing-cpp is imported on first use, and only here, because some machines do not have it

    return zxingcpp


def _decode(grey: NDArray[np.uint8], formats: tuple[str, ...]) -> list[_Barcode]:
    zxing = _zxing()
    found = []
    wanted = [getattr(zxing.BarcodeFormat, name) for name in formats]
    # In the default mode, a control character is replaced by its name, for example "<GS>".
    for code in zxing.read_barcodes(grey, formats=wanted, text_mode=zxing.TextMode.Plain):
        position = code.position
        corners = [position.top_left, position.top_right, position.bottom_right, position.bottom_left]
        name = str(code.format).rsplit(".", 1)[-1].replace(" ", "").replace("-", "")
        text = code.text.replace("\0", "")[:1000]
        points = np.array([[corner.x, corner.y] for corner in corners], np.float32)
        found.append(_Barcode(_FORMAT_NAMES.get(name, name), text, points))
    return found


def _find_bars(grey: NDArray[np.uint8]) -> list[tuple[NDArray[np.float64], tuple[int, int]]]:
    """Find regions that look like the bars of a linear code.

    :returns: for each region, the affine matrix ``[2, 3]`` that maps the image to a patch with upright bars, and the
        size (width, height) of the patch.
    """
    _, rectangles = cv2.barcode.BarcodeDetector().detect(grey)
    patches = []
    for corners in rectangles[:_MAX_PATCHES] if rectangles is not None else []:
        centre, (width, height), degrees = cv2.minAreaRect(corners)
        # The detector cuts off the ends of the bars, and the patch must also include the quiet zones.
        margin = min(width, height) / 2
        scale = min(_PATCH_SCALE, _MAX_PATCH_SIDE / (max(width, height) + 2 * margin))
        size = (round(scale * (width + 2 * margin)), round(scale * (height + 2 * margin)))
        matrix = cv2.getRotationMatrix2D(centre, degrees, scale)
        matrix[:, 2] += np.array(size) / 2 - centre
        patches.append((matrix, size))
    return patches


def _bounding_box(corners: NDArray[np.float32], width: int, height: int) -> list[float]:
    """Return the axis-aligned bounding box x1, y1, x2, y2 of four corners ``[4, 2]``, clipped to the image."""
    clipped = corners.clip(0, [width, height])
    return [round(float(value), 1) for value in (*clipped.min(0), *clipped.max(0))]
