"""Compare the text of a barcode with a declared one, which people may write differently from how it is printed."""

import re
import unicodedata
from typing import Final

_DASHES: Final = "\u2212\u30fc"
"""The minus sign and the Japanese sign for a long vowel, which people type as dashes but which have other categories."""
_APPLICATION_IDENTIFIER: Final = re.compile(r"\(([0-9]{2,4})\)")
"""Matches the number in front of an element string, as it is printed. The brackets are not part of the barcode."""
_ELEMENT_STRINGS: Final = re.compile(r"01([0-9]{14})(.*)")
"""Matches a GTIN that is written as an element string, and the element strings after it (GS1 General Specifications,
3.3.2)."""
_NAMES: Final = "(?:GTIN|EAN|UPC|JAN|ISBN|ISSN|ISMN|GS1|UCC|BARCODE)"
_EXTRAS: Final = (
    re.compile(r"(.*[0-9])\.0+"),
    re.compile(rf"{_NAMES}(?:[ -]?(?:8|10|12|13|14|128|A|E))?(?:[^0-9A-Z(]+(?:NO|NUMBER|CODE))?[^0-9A-Z(]*(.+)", re.IGNORECASE),
    re.compile(rf"{_NAMES}[^0-9A-Z(]*([0-9].*)", re.IGNORECASE),
    re.compile(r"\][A-Za-z][0-9A-Za-z](.+)"),
)
"""Each matches a number with something that does not belong to it: the decimal place that a spreadsheet adds, the name of
the kind of number, or the symbology identifier that a scanner adds (ISO/IEC 15424). The second one also matches the name
of a variant, for example ``EAN-13``, and the third one a number that begins like such a name."""
_GTIN_LENGTHS: Final = {8, 12, 13, 14}
_UPC_E: Final = re.compile("[01][0-9]{7}")
_UPC_E_EXPANDED: Final = re.compile("00[01]([0-9]{2}[012]0{4}[0-9]{3}|[0-9]{3}0{5}[0-9]{2}|[0-9]{4}0{5}[0-9]|[0-9]{5}0{4}[5-9])[0-9]")
"""Matches the 14-digit numbers that can be printed as a UPC-E (GS1 General Specifications, 5.2.2.4.2)."""


def matches(declared: str, text: str, *, is_upc_e: bool) -> bool:
    """Return whether a barcode with this text is the declared one.

    Both can be written in any typography: with spaces, dashes or invisible characters, with digits of any script, and
    with or without brackets and separators of element strings. A GTIN can have any number of leading zeros, can be an
    element string, and can be declared as printed in a UPC-E. If other element strings are also declared, they must be
    the same, unless the barcode contains only the GTIN. A GTIN can be declared with its name (``EAN 4006381333931``), with
    the symbology identifier of a scanner, or with the decimal place of a spreadsheet.

    :param text: the text that was read; for a UPC-E, the equivalent UPC-A.
    :param is_upc_e: whether the barcode is a UPC-E.
    """
    if _normalize(declared) == _normalize(text):
        return True
    compact = _compact(text)
    gtin, elements = _split_elements(compact)
    if gtin is None:
        wanted = _compact(declared)
        return wanted == compact and wanted.isdecimal()
    return any(_has_gtin(wanted, gtin, elements, is_upc_e=is_upc_e) for wanted in _compact_variants(declared))


def could_be_upc_e(declared: str) -> bool:
    """Return whether a declared barcode can have been printed as a UPC-E."""
    for digits in _compact_variants(declared):
        gtin = _split_elements(digits)[0] or digits.zfill(14)
        if _UPC_E.fullmatch(_pad_upc_e(digits)) or _UPC_E_EXPANDED.fullmatch(gtin):
            return True
    return False


def _has_gtin(wanted: str, gtin: str, elements: str, *, is_upc_e: bool) -> bool:
    """Return whether a declared barcode has a GTIN that was read, and no other element strings than those.

    :param wanted: the letters and digits of the declared barcode.
    """
    declared_gtin, declared_elements = _split_elements(wanted)
    if elements and declared_elements:
        return (declared_gtin, declared_elements) == (gtin, elements)
    return gtin in {declared_gtin, wanted.zfill(14), *_expand_upc_e(wanted, is_upc_e=is_upc_e)}


def _compact_variants(declared: str) -> list[str]:
    """Return the letters and digits of a declared barcode, with and without what does not belong to a number."""
    variants = [_normalize(declared)]
    for pattern in _EXTRAS:
        variants += [match[1] for variant in variants if (match := pattern.fullmatch(variant))]
    return [_compact(variant) for variant in variants]


def _normalize(text: str) -> str:
    """Return a text without typographic differences."""
    characters = (_normalize_character(character) for character in unicodedata.normalize("NFKC", text))
    return _APPLICATION_IDENTIFIER.sub(r"\1", " ".join("".join(characters).split()))


def _normalize_character(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Pd" or character in _DASHES:
        return "-"
    if category in {"Cc", "Cf"} and character not in "\t\n\r":  # among them, the separator of element strings
        return ""
    return character


def _compact(text: str) -> str:
    """Return only the letters and digits of a text."""
    return "".join(filter(str.isalnum, _normalize(text)))


def _split_elements(compact: str) -> tuple[str | None, str]:
    """Return the GTIN in a text, padded to 14 digits, and the element strings after it.

    :returns: None and an empty text if there is no GTIN.
    """
    if match := _ELEMENT_STRINGS.fullmatch(compact):
        gtin, elements = match.groups()
    else:
        gtin, elements = compact, ""
    is_gtin = gtin.isdecimal() and len(gtin) in _GTIN_LENGTHS and _has_valid_check_digit(gtin)
    return (gtin.zfill(14), elements) if is_gtin else (None, "")


def _expand_upc_e(digits: str, *, is_upc_e: bool) -> list[str]:
    """Expand the digits of a UPC-E to a GTIN of 14 digits (GS1 General Specifications, 5.2.2.4.2).

    Eight digits with a valid check digit are taken for an EAN-8, unless a UPC-E was read.

    :param is_upc_e: whether a UPC-E was read.
    :returns: an empty list if the digits are not those of a UPC-E.
    """
    upc_e = _pad_upc_e(digits)
    if not _UPC_E.fullmatch(upc_e) or (_has_valid_check_digit(upc_e) and not is_upc_e):
        return []
    system, inner, last, check_digit = upc_e[0], upc_e[1:6], upc_e[6], upc_e[7]
    if last in "012":
        expanded = f"{system}{inner[:2]}{last}0000{inner[2:]}{check_digit}"
    elif last in "34":
        kept = int(last)
        expanded = f"{system}{inner[:kept]}{'0' * 5}{inner[kept:]}{check_digit}"
    else:
        expanded = f"{system}{inner}0000{last}{check_digit}"
    return [expanded.zfill(14)]


def _pad_upc_e(digits: str) -> str:
    """Restore the leading zero of a UPC-E, which a spreadsheet removes."""
    return digits.zfill(8) if len(digits) == 7 else digits


def _has_valid_check_digit(digits: str) -> bool:
    """Return whether the last digit of a GTIN is the correct check digit (GS1 General Specifications, 7.9)."""
    total = sum(int(digit) * (3 if position % 2 else 1) for position, digit in enumerate(reversed(digits)))
    return total % 10 == 0
