"""Compares the barcodes that were read in an image with the barcode that was declared."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared import barcode_text

_RETAIL_FORMATS: Final = frozenset({"EAN-13", "EAN-8", "UPC-A"})


def check(declared: str | None, found: Sequence[Mapping[str, Any]]) -> str:
    """Return the ``barcode_check`` of an image, by comparing the declared barcode with the barcodes that were read.

    A few bars of another barcode can be misread as a UPC-E, because the check digit of a UPC-E is weak. So a UPC-E
    counts as a mismatch only if the declared barcode could have been printed as a UPC-E.

    :param declared: the barcode that the client declared, or None.
    :param found: the stored ``barcodes`` of the image, each with ``format`` and ``text``.
    :returns: ``not_declared`` if no barcode was declared; ``match`` if the declared barcode was read; ``mismatch`` if a
        retail barcode was read but not the declared one; ``not_read`` otherwise.
    """
    if not declared:
        return "not_declared"
    if any(barcode_text.matches(declared, code["text"], is_upc_e=code["format"] == "UPC-E") for code in found):
        return "match"
    contradicting = _RETAIL_FORMATS | {"UPC-E"} if barcode_text.could_be_upc_e(declared) else _RETAIL_FORMATS
    return "mismatch" if any(code["format"] in contradicting for code in found) else "not_read"
