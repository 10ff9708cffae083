"""Reading barcodes, and comparing them with the declared one."""

from typing import Any, Final

from worker.vision.imaging import Rgb

RETAIL: Final = frozenset({"EAN13", "EAN8", "UPCA", "UPCE"})
_NAMES: Final = {"EAN13": "EAN-13", "EAN8": "EAN-8", "UPCA": "UPC-A", "UPCE": "UPC-E", "Code128": "Code 128", "QRCode": "QR Code", "DataMatrix": "Data Matrix"}  # fmt: skip
_MOST: Final = 50


def read(rgb: Rgb) -> list[dict[str, Any]]:
    """Find the barcodes of a picture: EAN, UPC, Code 128, QR, Data Matrix; several, turned, with their upright boxes."""
    import zxingcpp  # noqa: PLC0415 -- on first use: this is its one place

    wanted = [getattr(zxingcpp.BarcodeFormat, name) for name in _NAMES]
    found = []
    for code in zxingcpp.read_barcodes(rgb, formats=wanted)[:_MOST]:
        corners = [code.position.top_left, code.position.top_right, code.position.bottom_right, code.position.bottom_left]
        xs, ys = [corner.x for corner in corners], [corner.y for corner in corners]
        name = str(code.format).rsplit(".", 1)[-1].replace(" ", "").replace("-", "")
        text = code.text.replace("\0", "")[:1000]
        found.append({"format": _NAMES.get(name, name), "text": text, "box": [float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))]})  # fmt: skip
    return found


def check(declared: str | None, found: list[dict[str, Any]]) -> str:
    """Compare what was declared with what was read.

    :returns: ``not_declared``; ``match``; ``mismatch`` only when a retail code was read and none agrees; else ``not_read``.
    """
    if not declared:
        return "not_declared"
    wanted = _same_form(declared)
    if any(_same_form(code["text"]) == wanted for code in found):
        return "match"
    retail = any(code["format"].replace("-", "") in RETAIL for code in found)
    return "mismatch" if retail else "not_read"


def _same_form(text: str) -> str:
    """Write a GTIN with 14 digits (a UPC-A is an EAN-13 with a leading zero); leave anything else as it is."""
    bare = text.strip().replace(" ", "").replace("-", "")
    if bare.isascii() and bare.isdigit() and len(bare) in {8, 12, 13, 14} and _has_check_digit(bare):
        return bare.zfill(14)
    return text.strip()


def _has_check_digit(digits: str) -> bool:
    """Check a GTIN's last digit (GS1 General Specifications, 7.9)."""
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(reversed(digits)))
    return total % 10 == 0
