"""What is shown and told of one picture: every form of it, the same each time, and never less because one augmentation fails."""

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
from worker.vision.augment.operations import Plan
from worker.vision.errors import VisionError
from worker.vision.imaging import Rgb

SAMPLE = (paths.SAMPLES / "carton-01a.jpg").read_bytes()
MAX = 50_000_000
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FORMS = {
    "jpeg": (encode_image(draw_image(), "JPEG"), ("jpeg", "RGB", 1)),
    "grey": (encode_image(draw_image().convert("L"), "JPEG"), ("jpeg", "L", 1)),
    "inks": (encode_image(draw_image().convert("CMYK"), "JPEG"), ("jpeg", "CMYK", 1)),
    "palette": (encode_image(draw_image().convert("P"), "PNG"), ("png", "P", 1)),
    "sixteen bits": (encode_image(Image.fromarray(np.full((64, 96), 40_000, np.uint16)), "PNG"), ("png", "I;16", 1)),
    "animated": (encode_image(draw_image(), "WEBP", save_all=True, append_images=[draw_image(2), draw_image(3)]), ("webp", "RGB", 3)),
    "animated palette": (encode_image(draw_image(), "GIF", save_all=True, append_images=[draw_image(2), draw_image(3)]), ("gif", "P", 3)),
}


def augmented(data: bytes, names: tuple[str, ...] = AUGMENTATIONS, seed: int = 1) -> describe.Inspected:
    return describe.augmented(data, names=names, seed=seed, max_pixels=MAX)


def read(file: bytes) -> Rgb:
    return imaging.decode(file, max_pixels=MAX).rgb


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_picture_is_shown_and_described(name: str) -> None:
    data, (kind, mode, frames) = FORMS[name]
    shown, told = augmented(data, ("rotate",)), describe.described(data, max_pixels=MAX)
    basics = {"format": kind, "mode": mode, "width": 96, "height": 64, "bytes": len(data), "frames": frames}
    for one in (shown, told):
        assert {field: one.fields[field] for field in basics} == basics
        json.dumps(one.fields, allow_nan=False)
        assert read(one.files["original"]).shape == (64, 96, 3)
    assert told.rgb.shape == (64, 96, 3)
    assert shown.rgb.size == 0


def test_a_description_says_what_is_known_of_a_picture() -> None:
    exif = Image.Exif()
    exif[0x10F], exif[0x112] = "Maker", 6
    photo = Image.open(paths.SAMPLES / "carton-01a.jpg")
    told = describe.described(encode_image(photo, "JPEG", exif=exif, icc_profile=SRGB, quality=95), max_pixels=MAX)
    assert (told.fields["width"], told.fields["height"]) == (photo.height, photo.width)
    assert told.rgb.shape == (photo.width, photo.height, 3)
    assert max(read(told.files["original"]).shape) == 700
    assert told.fields["exif"] == {"Make": "Maker"}
    assert told.fields["icc"] == "sRGB built-in"
    assert len(told.fields["phash"]) == 16
    assert 0.2 < told.fields["brightness"] < 0.9
    assert told.fields["sharpness"] > 10
    assert told.fields["dominant_colors"][0].keys() == {"hex", "share"}
    assert {code["format"] for code in told.fields["barcodes"]} == {"EAN-13"}
    assert set(told.files) == {"original"}


def test_augmentations_are_made_of_the_picture_as_it_is_shown() -> None:
    made = augmented(SAMPLE)
    assert [one["name"] for one in made.fields["augmentations"]] == list(AUGMENTATIONS)
    assert set(made.files) == {"original", *AUGMENTATIONS}
    assert (made.fields["width"], made.fields["height"]) == (1280, 960)
    shown = read(made.files["original"])
    assert shown.shape == (525, 700, 3)
    assert np.abs(read(made.files["horizontal_flip"])[:, ::-1].astype(int) - shown).mean() < 4
    for file in made.files.values():
        assert read(file).shape == shown.shape


def test_the_same_seed_gives_the_same_bytes_and_another_one_others() -> None:
    names = ("rotate", "noise", "cutout")
    first, again, other = augmented(SAMPLE, names), augmented(SAMPLE, names), augmented(SAMPLE, names, seed=2)
    assert first.files == again.files
    assert first.fields == again.fields
    assert first.files["original"] == other.files["original"]
    for name in names:
        assert first.files[name] != other.files[name]
    assert augmented(SAMPLE, ("noise",)).files["noise"] == first.files["noise"]  # whatever it is asked for with


def test_an_augmentation_that_fails_is_named_and_the_others_are_made(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(_rgb: Rgb, _plan: Plan) -> Rgb:
        raise ZeroDivisionError

    monkeypatch.setitem(pixels_opencv.OPERATIONS, "shear", failing)
    with caplog.at_level(logging.ERROR):
        made = augmented(SAMPLE, ("rotate", "shear", "noise"))
    assert made.fields["augmentations"][1] == {"name": "shear", "error": "augmentation_failed"}
    assert [one["name"] for one in made.fields["augmentations"] if "params" in one] == ["rotate", "noise"]
    assert set(made.files) == {"original", "rotate", "noise"}
    assert "shear" in caplog.text


def test_a_picture_at_fault_has_its_code() -> None:
    for data, code in ((b"", "empty"), (b"<html>", "unsupported_format"), (SAMPLE[:9000], "truncated")):
        with pytest.raises(VisionError, match=code):
            augmented(data)
        with pytest.raises(VisionError, match=code):
            describe.described(data, max_pixels=MAX)
    with pytest.raises(VisionError, match="too_many_pixels"):
        describe.augmented(SAMPLE, names=(), seed=1, max_pixels=1000)
