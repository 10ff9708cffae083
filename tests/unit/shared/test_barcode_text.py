"""Declared barcodes in the typography of people, spreadsheets and labels; and the texts of control characters."""

import numpy as np
import pytest
import zxingcpp

from shared import barcode_checks
from worker.vision import barcode

EAN, UPC, GTIN = "4006381333931", "0036000291452", "04006381333931"
ARABIC_INDIC = {ord("0") + digit: chr(0x660 + digit) for digit in range(10)}
ELEMENTS = "010400638133393110AB-1\x1d21XYZ"


def full_width(text: str) -> str:
    return "".join("\u3000" if character == " " else chr(ord(character) + 0xFEE0) for character in text)


def check(declared: str, text: str, kind: str = "EAN-13") -> str:
    return barcode_checks.check(declared, [{"format": kind, "text": text, "box": [0, 0, 1, 1]}])


@pytest.mark.parametrize(
    "declared",
    [
        "4 006381 333931", "4\u00a0006381\u00a0333931", "4\u2009006381\u202f333931", "4\u3000006381\u2007333931", "4-006381-333931", "4\u2010006381\u2011333931",
        "4\u2013006381\u2014333931", "4\u2212006381\u2212333931", full_width(EAN), full_width("4 006381 333931").replace("\u3000", "\u30fc"), EAN.translate(ARABIC_INDIC), "\u200e4006381333931\u200f",
        "\u202a4006381333931\u202c", "\u2066\u2068400638\u200b1333931\u2069", "\ufeff4006381333931", "400638\u00ad1333931", "4.006381.333931", "4006381333931\r\n", "\t4006381333931 ",
        GTIN, "004006381333931"[1:], "(01)04006381333931", "(01) 0 4006381 33393 1", "0104006381333931", full_width("(01)04006381333931"),
    ],
)  # fmt: skip
def test_the_same_number_in_another_typography_matches(declared: str) -> None:
    assert check(declared, EAN) == "match"


@pytest.mark.parametrize("declared", ["0036000291452", "036000291452", "36000291452", "00036000291452", "3600-0291452", "0 36000 29145 2"])
def test_a_upc_a_matches_with_any_number_of_leading_zeros(declared: str) -> None:
    assert check(declared, UPC) == "match"
    assert check(declared, UPC[1:], "UPC-A") == "match"


@pytest.mark.parametrize("declared", ["4252614", "04252614", "0-425261-4"])
def test_a_upc_e_matches_without_its_leading_zero(declared: str) -> None:
    assert check(declared, "0042100005264", "UPC-E") == "match"
    assert check("4252624", "0042100005264", "UPC-E") == "mismatch"


@pytest.mark.parametrize(
    "declared",
    [
        "036000291452.0", "36000291452.0", "36000291452.00", "0036000291452.0", "UPC: 036000291452", "UPC-A 036000291452", "upc036000291452", "UPC 36000291452.0", "UPC#036000291452",
        "]E00036000291452", "]E0 036000291452", "]C10100036000291452", "GTIN-14: 00036000291452", "GTIN: (01)00036000291452", "UPC-A: 0-36000-29145-2", full_width("UPC:036000291452"),
        "barcode: 036000291452", "UPC No. 036000291452",
    ],
)  # fmt: skip
def test_names_and_decimal_places_do_not_belong_to_a_number(declared: str) -> None:
    assert check(declared, UPC) == "match"
    assert check(declared, EAN) == "mismatch"


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        ("ISBN 978-3-16-148410-0", "9783161484100"), ("ISBN-13: 978-3-16-148410-0", "9783161484100"), ("ISBN978-3-16-148410-0", "9783161484100"), ("ISSN 9771234567003", "9771234567003"),
        ("EAN4006381333931", EAN), ("EAN-13: 4006381333931", EAN), ("EAN13 4006381333931", EAN), ("JAN: 4901234567894", "4901234567894"), ("EAN-8 96385074", "96385074"), ("]E496385074", "96385074"),
        ("EAN 1398765432105", "1398765432105"), ("EAN1398765432105", "1398765432105"),
    ],
)  # fmt: skip
def test_the_name_of_a_number_does_not_belong_to_it(declared: str, text: str) -> None:
    assert check(declared, text) == "match"


@pytest.mark.parametrize("declared", ["UPC-E: 04252614", "UPC-E 4252614", "4252614.0"])
def test_a_upc_e_can_be_declared_with_its_name(declared: str) -> None:
    assert check(declared, "0042100005264", "UPC-E") == "match"
    assert check("UPC-E: 04252624", "0042100005264", "UPC-E") == "mismatch"


def test_names_belong_to_texts_that_are_no_numbers() -> None:
    assert check("EAN shelf", "shelf", "Code 128") == "not_read"
    assert check("7.0", "7", "Code 128") == "not_read"


@pytest.mark.parametrize(
    "declared",
    ["4006381333924", "6381333931", "40063813339310", "400638133393", "4006381333931 4006381333931", "A4006381333931", "(01)04006381333924", "(02)04006381333931", "0004006381333931", "36000291452", "\uff11", "\u1369\u136a", "\u200b", "x",
     "SKU 4006381333931", "EAN 4006381333924", "4006381333931.5", "EAN 4006381333931 x 2", "]E04006381333924", "ISBN", "EAN: ", "]E0"],
)  # fmt: skip
def test_another_number_or_addition_is_a_mismatch(declared: str) -> None:
    assert check(declared, EAN) == "mismatch"


@pytest.mark.parametrize(
    ("declared", "verdict"),
    [
        (EAN, "match"),
        (GTIN, "match"),
        ("(01)04006381333931", "match"),
        ("0104006381333931", "match"),
        ("(01)04006381333931(10)AB-1(21)XYZ", "match"),
        (ELEMENTS, "match"),
        ("(01)04006381333931(10)AB-2(21)XYZ", "not_read"),
        ("(10)AB-1", "not_read"),
        ("4006381333924", "not_read"),
        ("(01)04006381333924", "not_read"),
    ],
)
@pytest.mark.parametrize("kind", ["Code 128", "Data Matrix", "QR Code"])
def test_a_gs1_barcode_matches_its_gtin_and_its_element_strings(kind: str, declared: str, verdict: str) -> None:
    assert check(declared, ELEMENTS, kind) == verdict


def test_a_retail_barcode_matches_the_gtin_of_declared_element_strings() -> None:
    assert check("(01)04006381333931(10)AB-1", EAN) == "match"
    assert check("(01)04006381333931(10)AB-1", "4006381333924") == "mismatch"


@pytest.mark.parametrize(
    ("declared", "text", "verdict"),
    [
        ("shelf 7", "shelf 7", "match"),
        ("shelf\u00a07", "shelf 7", "match"),
        ("A\u20117", "A-7", "match"),
        (full_width("AB7"), "AB7", "match"),
        ("(10)LOT7", "10LOT7", "match"),
        ("1234 567", "1234567", "match"),
        ("A7", "A-7", "not_read"),
        ("shelf 7", "Shelf 7", "not_read"),
        ("17", "00017", "not_read"),
    ],
)
def test_other_texts_match_apart_from_typography(declared: str, text: str, verdict: str) -> None:
    assert check(declared, text, "Code 128") == verdict


@pytest.mark.parametrize("text", ["AB12\x1d", "A\x1dB\x1e\x04", "tab\there"])
def test_control_characters_are_read_as_themselves(text: str) -> None:
    for symbology, name in (("Code128", "Code 128"), ("DataMatrix", "Data Matrix"), ("QRCode", "QR Code")):
        drawn = zxingcpp.create_barcode(text, getattr(zxingcpp.BarcodeFormat, symbology)).to_image(scale=4)
        image = np.repeat(np.pad(np.array(drawn, np.uint8), 40, constant_values=255)[..., None], 3, 2)
        found = barcode.read(np.ascontiguousarray(image))
        assert [(code["format"], code["text"]) for code in found] == [(name, text)]
        assert barcode_checks.check(text, found) == "match"
