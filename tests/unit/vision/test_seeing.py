"""Barcodes, quality and the bundled model on the project's own drawings."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from worker.vision import barcode, detect, imaging, quality

SAMPLES = Path(__file__).resolve().parents[3] / "samples"


def sample(name: str) -> imaging.Rgb:
    return imaging.decode((SAMPLES / name).read_bytes(), max_pixels=50_000_000).rgb


@pytest.fixture(scope="module")
def detector() -> detect.Detector:
    return detect.load()


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


def test_the_bundled_model_sees_what_was_drawn(detector: detect.Detector) -> None:
    labels = {found["label"] for found in detector.predict([sample("shelf-01.jpg")])[0]}
    assert {"Apple", "Orange", "Banana"} <= labels
    assert detector.predict([sample("carton-02a.jpg")])[0][0]["label"] == "Juice"
    assert len(detector.info["weights_sha256"]) == 64


def test_boxes_lie_in_the_picture_and_scores_fall(detector: detect.Detector) -> None:
    rgb = sample("shelf-06.jpg")
    for one, picture in zip(detector.predict([rgb, rgb[:200, :300]]), (rgb, rgb[:200, :300]), strict=True):
        assert [found["score"] for found in one] == sorted((found["score"] for found in one), reverse=True)
        for found in one:
            x1, y1, x2, y2 = found["box"]
            assert 0 <= x1 < x2 <= picture.shape[1]
            assert 0 <= y1 < y2 <= picture.shape[0]


def test_the_engine_gives_what_the_plain_torchvision_model_gives(detector: detect.Detector) -> None:
    pictures = [sample(f"shelf-0{n}.jpg") for n in range(1, 5)]
    small = [cv2.resize(rgb, (256, 256), interpolation=cv2.INTER_AREA) for rgb in pictures]
    with torch.inference_mode():
        plain = detector._model([torch.from_numpy(rgb).permute(2, 0, 1).float() / 255 for rgb in small])
    for found, expected, rgb in zip(detector.predict(pictures), plain, pictures, strict=True):
        kept = expected["scores"] >= 0.3
        assert np.allclose([one["score"] for one in found], expected["scores"][kept].numpy(), atol=1e-2)
        scale = np.array([rgb.shape[1], rgb.shape[0]] * 2) / 256
        assert np.abs(np.array([one["box"] for one in found]) - expected["boxes"][kept].numpy() * scale).max() <= 1
