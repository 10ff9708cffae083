"""Barcodes and quality on the project's own drawings."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from worker.vision import barcode, imaging, quality

SAMPLES = Path(__file__).resolve().parents[3] / "samples"


def sample(name: str) -> imaging.Rgb:
    return imaging.decode((SAMPLES / name).read_bytes(), max_pixels=50_000_000).rgb


def test_several_barcodes_are_read_with_their_boxes() -> None:
    found = barcode.read(sample("carton-01a.jpg"))
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
    assert barcode.check(declared, found) == verdict


def test_quality_tells_dark_from_bright_and_blurred_from_sharp() -> None:
    rgb = sample("shelf-01.jpg")
    found = quality.measure(rgb)
    assert quality.measure((rgb * 0.3).astype(np.uint8))["brightness"] < found["brightness"] / 2
    assert quality.measure(cv2.GaussianBlur(rgb, (0, 0), 6))["sharpness"] < found["sharpness"] / 4
