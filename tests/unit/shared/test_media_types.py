"""Image formats are detected by the first bytes of a file, and by nothing else."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shared import media_types


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "gif", "bmp", "tiff", "avif"])
def test_the_format_of_a_real_file_is_detected(name: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 10, 30)).save(buffer, name.upper())
    assert media_types.sniff(buffer.getvalue()[:32]) == name
    assert media_types.SIGNATURES[name] in media_types.CONTENT_TYPES


def test_an_avif_file_may_have_a_general_brand() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "AVIF")
    head = buffer.getvalue()[:32]
    assert media_types.sniff(head[:8] + b"mif1" + head[12:]) == "avif"
    assert media_types.sniff(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic") is None


@given(st.binary(max_size=40))
def test_any_bytes_are_classified_without_an_error(head: bytes) -> None:
    assert media_types.sniff(head) in {None, *media_types.SIGNATURES}


@pytest.mark.parametrize(
    "head", [b"", b"\xff\xd8", b"%PDF-1.7", b"<svg xmlns=", b"RIFF\0\0\0\0WAVE", b"\0\0\0\x20ftypisom", b"MM\0\x2b"]
)
def test_other_files_are_not_images(head: bytes) -> None:
    assert media_types.sniff(head) is None


def test_media_types_are_those_registered_with_iana() -> None:
    assert media_types.CONTENT_TYPES["jpg"] == "image/jpeg"
    assert media_types.CONTENT_TYPES["tiff"] == "image/tiff"
