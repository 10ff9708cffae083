"""Barcodes drawn into images: reading, position and comparison; and the table of read rates."""

import numpy as np
import pytest
import zxingcpp

from shared import barcode_checks
from tests.support.paths import SAMPLES
from worker.vision import barcode, imaging
from worker.vision.imaging import Rgb
from worker.vision.train import barcode_read_rates
from worker.vision.train.barcode_read_rates import SYMBOLOGIES, Code, DrawnCode, ReadRate


@pytest.fixture(scope="module")
def rates() -> list[ReadRate]:
    return barcode_read_rates.measure(1, seed=4)


def draw_labels(codes: list[Code], degrees: float = 0.0, seed: int = 1) -> tuple[Rgb, list[DrawnCode]]:
    """Draw labels on a shelf, three in a row, each rotated by ``degrees``; return the image and the drawn barcodes."""
    scene = barcode_read_rates.draw_scene(np.random.default_rng(seed))
    positions = [(x, y) for y in (170, 480, 790) for x in (200, 640, 1080)]
    return scene, [
        barcode_read_rates.paste_label(scene, code, barcode_read_rates.rotation_pose(degrees), position)
        for code, position in zip(codes, positions, strict=False)
    ]


def one_of_each(seed: int) -> list[Code]:
    rng = np.random.default_rng(seed)
    return [barcode_read_rates.random_code(symbology, rng) for symbology in SYMBOLOGIES]


def test_every_barcode_of_an_undegraded_image_is_read(rates: list[ReadRate]) -> None:
    assert rates[0].degradation == "none"
    assert rates[0].read == rates[0].matched == dict.fromkeys(SYMBOLOGIES, 1)


def test_a_barcode_that_was_not_drawn_never_matches(rates: list[ReadRate]) -> None:
    assert {rate.degradation for rate in rates} > {
        "blur",
        "motion blur",
        "tilt",
        "rotation",
        "glare",
        "low light",
        "JPEG",
        "small",
    }
    assert sum(rate.wrong_matches for rate in rates) == 0


def test_the_table_has_a_row_for_every_strength() -> None:
    rate = ReadRate("blur", "much", 4, wrong=2)
    rate.read.update(EAN13=4, EAN8=4, UPCA=2, QRCode=2)
    rate.matched.update(EAN13=4, EAN8=3)
    assert barcode_read_rates.format_table([rate, rate]).splitlines()[2:] == ["| blur | much | 0.50 | 0.25 | 0.25 | 2 | 0 |"] * 2


@pytest.mark.parametrize("degrees", [0, 12, 30, 45, 90, 137, 180, 270, 333])
def test_each_of_several_barcodes_is_found_once_at_its_position(degrees: float) -> None:
    scene, drawn = draw_labels(one_of_each(int(degrees)), degrees)
    found = {code["text"]: code["box"] for code in barcode.read(scene)}
    assert len(barcode.read(scene)) == len(drawn)
    for expected in drawn:
        assert np.abs(np.array(found[expected.code.text]) - expected.box).max() <= 6


@pytest.mark.parametrize("degrees", [0, 30])
def test_the_same_barcode_on_two_labels_is_found_twice(degrees: float) -> None:
    code = barcode_read_rates.random_code("EAN13", np.random.default_rng(5))
    scene, _ = draw_labels([code, code], degrees)
    assert [found["text"] for found in barcode.read(scene)] == [code.text] * 2


@pytest.mark.parametrize("seed", range(6))
def test_no_barcode_is_found_in_an_image_without_barcodes(seed: int) -> None:
    assert barcode.read(barcode_read_rates.draw_scene(np.random.default_rng(seed))) == []


def test_a_upc_a_matches_with_and_without_its_leading_zero() -> None:
    scene, _ = draw_labels([Code("UPCA", "0036000291452", "", "")])
    found = barcode.read(scene)
    assert [barcode_checks.check(declared, found) for declared in ("036000291452", "0036000291452", "00036000291452")] == [
        "match"
    ] * 3


def test_a_barcode_that_differs_in_one_digit_is_a_mismatch_even_with_a_valid_check_digit() -> None:
    scene, _ = draw_labels([Code("EAN13", "4006381333931", "", "")])
    found = barcode.read(scene)
    assert barcode_checks.check("4006381333931", found) == "match"
    assert barcode_checks.check("4006381333930", found) == "mismatch"
    assert barcode_checks.check("4006381333948", found) == "mismatch"


@pytest.mark.parametrize(
    "content", ["0425261", "0123450", "0123451", "0123452", "0124563", "0123454", "0123455", "0678919"]
)
def test_a_upc_e_matches_as_printed_and_expanded(content: str) -> None:
    text = zxingcpp.create_barcode(content, zxingcpp.BarcodeFormat.UPCE).text
    found = [{"format": "UPC-E", "text": text, "box": [0, 0, 1, 1]}]
    printed = content + text[-1]
    separated = f"{printed[0]}-{printed[1:7]}-{printed[7]}"
    assert [barcode_checks.check(declared, found) for declared in (printed, text, text[1:], separated, separated.replace("-", " "))] == ["match"] * 5
    assert barcode_checks.check(printed[:-1] + str((int(printed[-1]) + 1) % 10), found) == "mismatch"


def test_eight_digits_that_are_not_an_ean_8_match_their_expanded_upc_a() -> None:
    assert barcode_checks.check("04252614", [{"format": "EAN-13", "text": "0042100005264", "box": [0, 0, 1, 1]}]) == "match"


def test_eight_digits_that_are_also_an_ean_8_match_a_upc_a_only_if_a_upc_e_was_read() -> None:
    both, expanded = "10000052", "0100000000052"
    assert barcode_checks.check(both, [{"format": "EAN-13", "text": expanded, "box": [0, 0, 1, 1]}]) == "mismatch"
    assert barcode_checks.check(both, [{"format": "UPC-E", "text": expanded, "box": [0, 0, 1, 1]}]) == "match"


@pytest.mark.parametrize(
    ("declared", "verdict"),
    [
        ("4006381333931", "not_read"),  # an EAN-13 cannot be printed as a UPC-E
        ("036000291452", "not_read"),  # nor can this UPC-A
        ("042100005264", "mismatch"),
        ("0042100005264", "mismatch"),
        ("042100005265", "mismatch"),
        ("04252614", "mismatch"),
        ("96385074", "not_read"),
    ],
)
def test_a_upc_e_is_a_mismatch_only_if_the_declared_barcode_could_be_one(declared: str, verdict: str) -> None:
    """Half of an EAN-13 under glare was read as this UPC-E."""
    stray = {"format": "UPC-E", "text": "0103043000058", "box": [0, 0, 122, 1]}
    assert barcode_checks.check(declared, [stray]) == verdict
    assert barcode_checks.check(declared, [stray, {"format": "EAN-13", "text": "5901234123457", "box": [0, 0, 1, 1]}]) == "mismatch"


def test_several_barcodes_are_read_with_their_boxes() -> None:
    found = barcode.read(imaging.decode((SAMPLES / "carton-01a.jpg").read_bytes(), max_pixels=50_000_000).rgb)
    assert [code["text"] for code in found] == ["4006381333931"] * 2
    assert {code["format"] for code in found} == {"EAN-13"}
    for code in found:
        x1, y1, x2, y2 = code["box"]
        assert x2 - x1 > 100
        assert y2 > y1


@pytest.mark.parametrize(
    ("declared", "read", "verdict"),
    [
        (None, [("EAN-13", "4006381333931")], "not_declared"),
        ("4006381333931", [], "not_read"),
        ("4006381333931", [("QR Code", "hello")], "not_read"),
        ("4006381333931", [("EAN-13", "4006381333931")], "match"),
        ("4006381333931", [("EAN-13", "5901234123457")], "mismatch"),
        ("4006381333931", [("EAN-13", "5901234123457"), ("EAN-13", "4006381333931")], "match"),
        ("036000291452", [("EAN-13", "0036000291452")], "match"),
        ("0036000291452", [("UPC-A", "036000291452")], "match"),
        ("036000291453", [("EAN-13", "0036000291453")], "mismatch"),
        ("shelf 7", [("Code 128", "shelf 7")], "match"),
    ],
)
def test_the_check_says_mismatch_only_when_a_retail_code_disagrees(declared: str | None, read: list[tuple[str, str]], verdict: str) -> None:
    found = [{"format": kind, "text": text, "box": [0, 0, 1, 1]} for kind, text in read]
    assert barcode_checks.check(declared, found) == verdict
