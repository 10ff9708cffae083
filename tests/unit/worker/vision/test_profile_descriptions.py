"""The description of a colour profile: short, printable, and no danger to decoding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.worker.vision.encoding import MAX, RED, encoded, profile_with_description, several, srgb
from worker.vision import imaging


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_colour_profile_gives_its_description(kind: str) -> None:
    decoded = imaging.decode(encoded(RED, kind, icc_profile=srgb()), max_pixels=MAX)
    assert decoded.icc == "sRGB built-in"
    assert imaging.decode(encoded(RED, kind), max_pixels=MAX).icc is None


def test_the_description_of_a_profile_is_short_and_printable() -> None:
    for text, name in (
        (" Kamera \0".encode("utf-16-be"), "Kamera"),
        (("x" * 100_000).encode("utf-16-be"), "x" * 200),
        ("A\x1b[31m\nB".encode("utf-16-be"), "A[31mB"),
        (b"\x00 " * 50, None),
    ):
        data = encoded(RED, "PNG", icc_profile=profile_with_description(text))
        assert imaging.decode(data, max_pixels=MAX).icc == name


@several
@given(data=st.data())
def test_a_hostile_profile_does_not_prevent_decoding(data: st.DataObject) -> None:
    damaged = bytearray(profile_with_description(b"\0a" * 20))
    for _ in range(data.draw(st.integers(0, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(damaged)))
    decoded = imaging.decode(encoded(RED, "JPEG", icc_profile=bytes(damaged[:cut])), max_pixels=MAX)
    assert decoded.width == 40
    assert decoded.icc is None or 0 < len(decoded.icc.encode()) <= 800


def test_a_profile_of_more_than_one_megabyte_is_read_from_a_png_as_well() -> None:
    profile = srgb() + bytes(1024**2)
    decoded = imaging.decode(encoded(RED, "PNG", icc_profile=profile), max_pixels=MAX)
    assert (decoded.profile, decoded.icc) == (profile, "sRGB built-in")


def test_a_profile_of_more_than_four_megabytes_is_not_parsed() -> None:
    large = srgb() + bytes(4 * 1024**2)
    for kind in ("WEBP", "PNG"):
        assert imaging.decode(encoded(RED, kind, icc_profile=large), max_pixels=MAX).icc is None
