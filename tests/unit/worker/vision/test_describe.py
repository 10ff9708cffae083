"""Descriptions and augmentations of one image: every file format, determinism, and failures of single augmentations."""

import json
import logging

import numpy as np
import pytest
from PIL import Image, ImageCms

from shared.augmentations import AUGMENTATIONS
from tests.support import paths
from tests.support.crafted_images import draw_image, encode_image
from worker.vision import describe, imaging
from worker.vision.augment import pixels_opencv
from worker.vision.augment.operations import Transform
from worker.vision.errors import VisionError
from worker.vision.imaging import Rgb

SAMPLE = (paths.SAMPLES / "carton-01a.jpg").read_bytes()
MAX = 50_000_000
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FILES = {
    "jpeg": (encode_image(draw_image(), "JPEG"), ("jpeg", "RGB", 1)),
    "grey": (encode_image(draw_image().convert("L"), "JPEG"), ("jpeg", "L", 1)),
    "inks": (encode_image(draw_image().convert("CMYK"), "JPEG"), ("jpeg", "CMYK", 1)),
    "palette": (encode_image(draw_image().convert("P"), "PNG"), ("png", "P", 1)),
    "sixteen bits": (encode_image(Image.fromarray(np.full((64, 96), 40_000, np.uint16)), "PNG"), ("png", "I;16", 1)),
    "animated": (encode_image(draw_image(), "WEBP", save_all=True, append_images=[draw_image(2), draw_image(3)]), ("webp", "RGB", 3)),
    "animated palette": (encode_image(draw_image(), "GIF", save_all=True, append_images=[draw_image(2), draw_image(3)]), ("gif", "P", 3)),
}


def augment(data: bytes, names: tuple[str, ...] = AUGMENTATIONS, seed: int = 1) -> describe.ImageDescription:
    return describe.augment_image(data, names=names, seed=seed, max_pixels=MAX)


def read(file: bytes) -> Rgb:
    return imaging.decode(file, max_pixels=MAX).rgb


@pytest.mark.parametrize("name", FILES)
def test_an_image_of_every_file_format_is_augmented_and_described(name: str) -> None:
    data, (kind, mode, frames) = FILES[name]
    augmented, described = augment(data, ("rotate",)), describe.describe_image(data, max_pixels=MAX)
    properties = {"format": kind, "mode": mode, "width": 96, "height": 64, "bytes": len(data), "frames": frames}
    for result in (augmented, described):
        assert {field: result.fields[field] for field in properties} == properties
        json.dumps(result.fields, allow_nan=False)
        assert read(result.files["original"]).shape == (64, 96, 3)
    assert described.rgb.shape == (64, 96, 3)
    assert augmented.rgb.size == 0


def test_a_description_holds_metadata_quality_colours_and_barcodes() -> None:
    exif = Image.Exif()
    exif[0x10F], exif[0x112] = "Maker", 6
    photo = Image.open(paths.SAMPLES / "carton-01a.jpg")
    described = describe.describe_image(encode_image(photo, "JPEG", exif=exif, icc_profile=SRGB, quality=95), max_pixels=MAX)
    assert (described.fields["width"], described.fields["height"]) == (photo.height, photo.width)
    assert described.rgb.shape == (photo.width, photo.height, 3)
    assert max(read(described.files["original"]).shape) == 700
    assert described.fields["exif"] == {"Make": "Maker"}
    assert described.fields["icc"] == "sRGB built-in"
    assert len(described.fields["phash"]) == 16
    assert 0.2 < described.fields["brightness"] < 0.9
    assert described.fields["sharpness"] > 10
    assert described.fields["dominant_colors"][0].keys() == {"hex", "share"}
    assert {code["format"] for code in described.fields["barcodes"]} == {"EAN-13"}
    assert set(described.files) == {"original"}


def test_augmentations_are_made_at_display_size() -> None:
    result = augment(SAMPLE)
    assert [augmentation["name"] for augmentation in result.fields["augmentations"]] == list(AUGMENTATIONS)
    assert set(result.files) == {"original", *AUGMENTATIONS}
    assert (result.fields["width"], result.fields["height"]) == (1280, 960)
    displayed = read(result.files["original"])
    assert displayed.shape == (525, 700, 3)
    assert np.abs(read(result.files["horizontal_flip"])[:, ::-1].astype(int) - displayed).mean() < 4
    for file in result.files.values():
        assert read(file).shape == displayed.shape


def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others() -> None:
    names = ("rotate", "noise", "cutout")
    first, again, other = augment(SAMPLE, names), augment(SAMPLE, names), augment(SAMPLE, names, seed=2)
    assert first.files == again.files
    assert first.fields == again.fields
    assert first.files["original"] == other.files["original"]
    for name in names:
        assert first.files[name] != other.files[name]
    assert augment(SAMPLE, ("noise",)).files["noise"] == first.files["noise"]  # independent of the other augmentations


def test_a_failed_augmentation_is_reported_and_the_others_succeed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_rgb: Rgb, _transform: Transform) -> Rgb:
        raise ZeroDivisionError

    monkeypatch.setitem(pixels_opencv.OPERATIONS, "shear", fail)
    with caplog.at_level(logging.ERROR):
        result = augment(SAMPLE, ("rotate", "shear", "noise"))
    assert result.fields["augmentations"][1] == {"name": "shear", "error": "augmentation_failed"}
    assert [augmentation["name"] for augmentation in result.fields["augmentations"] if "params" in augmentation] == ["rotate", "noise"]
    assert set(result.files) == {"original", "rotate", "noise"}
    assert "shear" in caplog.text


def test_an_unusable_file_has_an_error_code() -> None:
    for data, code in ((b"", "empty"), (b"<html>", "unsupported_format"), (SAMPLE[:9000], "truncated")):
        with pytest.raises(VisionError, match=code):
            augment(data)
        with pytest.raises(VisionError, match=code):
            describe.describe_image(data, max_pixels=MAX)
    with pytest.raises(VisionError, match="too_many_pixels"):
        describe.augment_image(SAMPLE, names=(), seed=1, max_pixels=1000)
