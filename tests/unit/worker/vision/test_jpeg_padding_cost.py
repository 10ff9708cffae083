"""Hostile JPEGs with padding: what is decoded to find the padding is limited, because it happens outside the sandbox."""

from hashlib import sha256
from typing import Any, Final

import numpy as np
import pytest
from PIL import Image

from tests.support.crafted_images import encode_image, with_jpeg_segment, with_padded_restarts
from worker.vision import color_spaces, imaging, jpeg_decoder
from worker.vision.errors import VisionError
from worker.vision.formats import jpeg_header, jpeg_padding

MAX: Final = 50_000_000
NOISE: Final = Image.fromarray(np.random.default_rng(1).integers(0, 256, (800, 800), np.uint8))
"""Some restart intervals need a zero at their end, so each one is decoded on its own."""
FLAT: Final = Image.new("L", (1600, 1600), 128)


def decoded_bytes(data: bytes) -> tuple[int, int]:
    """Remove the padding, and return the number of attempts to decode something, and their total length."""
    library, lengths = jpeg_decoder.simplejpeg(), []

    def hash_pixels(part: bytes) -> bytes | None:
        lengths.append(len(part))
        try:
            return sha256(library.decode_jpeg(part, colorspace="RGB", strict=True)).digest()
        except ValueError:
            return None

    jpeg_padding.remove_padding(data, hash_pixels)
    return len(lengths), sum(lengths)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}])
def test_an_intact_jpeg_is_decoded_at_once(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for mender in (jpeg_padding, "remove_padding"), (jpeg_header, "lacks_only_end"), (color_spaces, "build_profile"):
        monkeypatch.delattr(*mender)
    assert imaging.decode(encode_image(NOISE, "JPEG", **options), max_pixels=MAX).rgb.shape == (800, 800, 3)


def padded(image: Image.Image, blocks: int) -> bytes:
    return with_padded_restarts(encode_image(image, "JPEG", quality=50, restart_marker_blocks=blocks), lambda _: bytes(2))


@pytest.mark.parametrize("marker", [0xE0, 0xE2, 0xEE, 0xFE])
@pytest.mark.parametrize("image", [NOISE, FLAT])
def test_metadata_are_not_repeated_for_each_interval(image: Image.Image, marker: int) -> None:
    whole = padded(image, 4)
    large = with_jpeg_segment(whole, marker, b"JFIF\0\1\1".ljust(60_000), 80)
    assert imaging.is_plain_jpeg(large, max_pixels=MAX)
    (attempts, length), (attempts_without, length_without) = decoded_bytes(large), decoded_bytes(whole)
    assert attempts == attempts_without
    assert length <= length_without + 8 * len(large)


def test_an_interval_is_decoded_on_its_own_only_if_another_one_needs_a_zero() -> None:
    assert decoded_bytes(padded(FLAT, 4))[0] < 10
    assert 2500 < decoded_bytes(padded(NOISE, 4))[0] < 3000


@pytest.mark.parametrize("count", [80, 400])
def test_tables_are_repeated_up_to_a_limit(count: int) -> None:
    """These files are refused as damaged. The tables of the second one, repeated for each interval, would have 6 GB."""
    whole = padded(NOISE, 4)
    tables = with_jpeg_segment(whole, 0xDB, (b"\0" + bytes(range(1, 65))) * count, 90)
    assert imaging.is_plain_jpeg(tables, max_pixels=MAX)
    assert decoded_bytes(tables)[1] <= 10 * len(tables)
    with pytest.raises(VisionError, match="corrupt"):
        imaging.decode(tables, max_pixels=MAX)


def test_damage_ends_the_search() -> None:
    """If an interval cannot be decoded, the others are not."""
    data = padded(NOISE, 4)
    begin, end = data.index(b"\xff\xd0") + 2, data.index(b"\xff\xd1")
    assert decoded_bytes(data[:begin] + bytes(6) + data[end:])[0] <= 12


def test_fill_bytes_are_searched_once() -> None:
    """A search that started again at each of them would take hours."""
    whole = encode_image(NOISE, "JPEG", restart_marker_blocks=4)
    for fill in (b"\xff" * 5_000_000, b"\xff" * 5_000_000 + b"\0"):
        data = whole[:-40] + fill + whole[-40:]
        with pytest.raises(VisionError):
            imaging.decode(data, max_pixels=MAX)
