"""EXIF data: orientations as browsers apply them, and texts as they were written."""

import io
import struct
import zlib
from typing import Final

import numpy as np
import pytest
from PIL import Image

from tests.support.crafted_images import (
    build_exif,
    build_png,
    draw_image,
    encode_image,
    png_chunk,
    png_rows,
    with_jpeg_segment,
    xmp_orientation,
)
from worker.vision import imaging

MAX: Final = 50_000_000
IMAGE: Final = draw_image(size=(48, 32))
TURN: Final = {0x112: (3, struct.pack("<H", 6))}
MAKE: Final = 0x10F
XMP: Final = xmp_orientation(6)


def size(data: bytes) -> tuple[int, int]:
    decoded = imaging.decode(data, max_pixels=MAX)
    assert decoded.rgb.shape == (decoded.height, decoded.width, 3)
    return decoded.width, decoded.height


def jpeg(*payloads: bytes) -> bytes:
    data = encode_image(IMAGE, "JPEG")
    for payload in reversed(payloads):
        data = with_jpeg_segment(data, 0xE1, payload)
    return data


@pytest.mark.parametrize("exif", [b"", build_exif({}), build_exif({MAKE: (2, b"Canon\0")}), build_exif({0x112: (3, b"\1\0")}), b"Exif\0\0nonsense"])
def test_the_orientation_of_xmp_turns_no_jpeg(exif: bytes) -> None:
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + XMP
    assert size(jpeg(exif, xmp) if exif else jpeg(xmp)) == (48, 32)


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "AVIF"])
def test_the_orientation_of_xmp_turns_no_other_image(kind: str) -> None:
    data = encode_image(IMAGE, kind, tiffinfo={700: XMP}) if kind == "TIFF" else encode_image(IMAGE, kind, xmp=XMP)
    assert XMP in data
    assert size(data) == (48, 32)
    if kind == "TIFF":
        assert np.array_equal(imaging.decode(data, max_pixels=MAX).rgb, np.asarray(IMAGE))


def test_texts_of_a_png_do_not_turn_it() -> None:
    text = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
    profile = png_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n" + str(len(build_exif(TURN))).encode() + b"\n" + build_exif(TURN).hex().encode())
    pixels = encode_image(IMAGE, "PNG")
    for chunk in (text, profile):
        for data in (pixels[:33] + chunk + pixels[33:], pixels[:-12] + chunk + pixels[-12:]):
            assert size(data) == (48, 32)


@pytest.mark.parametrize("order", "<>")
def test_the_orientation_of_exif_turns_every_format(order: str) -> None:
    exif = build_exif({0x112: (3, struct.pack(order + "H", 6))}, order)
    assert size(jpeg(exif)) == (32, 48)
    assert size(encode_image(IMAGE, "WEBP", exif=exif[6:])) == (32, 48)
    rows = png_chunk(b"eXIf", exif[6:])
    whole = encode_image(IMAGE, "PNG")
    assert size(whole[:33] + rows + whole[33:]) == (32, 48)
    assert size(encode_image(IMAGE, "TIFF", tiffinfo={0x112: 6})) == (32, 48)


def test_an_avif_is_turned_by_its_own_property_only() -> None:
    """Pillow writes the orientation of EXIF data as the properties ``irot`` and ``imir``."""
    assert size(encode_image(IMAGE, "AVIF", exif=build_exif(TURN)[6:])) == (32, 48)
    other_field, orientation = (struct.pack("<HHIH", tag, 3, 1, 6) for tag in (0x113, 0x112))
    whole = encode_image(IMAGE, "AVIF", exif=build_exif({0x113: TURN[0x112]})[6:])
    assert whole.count(other_field) == 1
    assert size(whole.replace(other_field, orientation)) == (48, 32)


@pytest.mark.parametrize("byte", [b"\xff", b"\1", b" "])
def test_the_byte_after_the_name_of_exif_data_may_be_anything(byte: bytes) -> None:
    assert size(jpeg(build_exif(TURN, header=b"Exif\0" + byte))) == (32, 48)


TEXTS: Final = {
    "Überwachungskamera".encode() + b"\0": "Überwachungskamera",
    "大华\0".encode(): "大华",
    "Überwachung".encode("latin-1") + b"\0": "Überwachung",
    b"Canon\0\0\0\0": "Canon",
    b"Canon\0rest of another text": "Canon",
    b"Axis": "Axis",
    b"  Axis \0": "Axis",
    b"A\x1b[31m\nB\x07\x7f\0": "A[31m B",
    b"A\xc2\x85\xc2\x9bB\0": "A B",
    "A\u202e\u2066\u200bB\0".encode(): "AB",
    "A\u00a0B\u3000C\0".encode(): "A B C",
    b"\x80Smart\0": "Smart",
    "大华技术".encode()[:-1]: "大华技",
    "大华技术".encode()[:-2] + b"\0": "大华技",
    "大".encode()[:-1] + b"\0": None,
    "Überwachungskamer\U0001f4f7".encode()[:-1]: "Überwachungskamer",
    "Caf\u00e9".encode("latin-1") + b"\0": "Café",
    "\u00dcberwachungsger\u00e4t f\u00fcr das Caf\u00e9".encode("latin-1"): "Überwachungsgerät für das Café",
    "大".encode()[:-1] + b"xyz\0": "å¤xyz",
    b"x" * 900 + b"\0": "x" * 200,
    "大".encode() * 900: "大" * 200,
    b"\0Canon": None,
    b"\1\2\3\4\5": None,
    b"   \0": None,
}


@pytest.mark.parametrize(("written", "text"), TEXTS.items())
@pytest.mark.parametrize("kind", [2, 7, 129])
def test_a_text_reads_as_it_was_written(written: bytes, text: str | None, kind: int) -> None:
    assert imaging.decode(jpeg(build_exif({MAKE: (kind, written)})), max_pixels=MAX).exif.get("Make") == text


def test_exif_in_a_png_may_follow_the_pixels() -> None:
    data = build_png(IMAGE.size, zlib.compress(png_rows(IMAGE)), after_pixels=png_chunk(b"eXIf", build_exif(TURN | {MAKE: (2, b"Axis\0\0")})[6:]))
    decoded = imaging.decode(data, max_pixels=MAX)
    assert (decoded.width, decoded.exif) == (32, {"Make": "Axis"})
    assert Image.open(io.BytesIO(data)).size == IMAGE.size


def test_a_text_of_the_type_utf_8_is_read_from_every_place() -> None:
    """The type 129 is new in Exif 3.0."""
    text = {MAKE: (129, "大华".encode() + b"\0"), 0x131: (129, b"OS")}
    wanted = {"Make": "大华", "Software": "OS"}
    rows = png_chunk(b"eXIf", build_exif(text)[6:])
    pixels = encode_image(IMAGE, "PNG")
    for data in (jpeg(build_exif(text, ">")), encode_image(IMAGE, "WEBP", exif=build_exif(text)[6:]), pixels[:33] + rows + pixels[33:]):
        assert imaging.decode(data, max_pixels=MAX).exif == wanted


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_texts_of_an_avif_are_those_of_the_file(orientation: int) -> None:
    """Pillow writes the EXIF data of an image that is turned anew, in ASCII."""
    text = "大华技术".encode()
    exif = build_exif({0x112: (3, struct.pack("<H", orientation)), MAKE: (2, b"x" * len(text) + b"\0")})[6:]
    whole = encode_image(IMAGE, "AVIF", exif=exif)
    assert whole.count(b"x" * len(text)) == 1
    decoded = imaging.decode(whole.replace(b"x" * len(text), text), max_pixels=MAX)
    assert decoded.exif == {"Make": "大华技术"}
    assert (decoded.width, decoded.height) == ((32, 48) if orientation == 6 else (48, 32))
