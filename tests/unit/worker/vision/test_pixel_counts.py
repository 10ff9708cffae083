"""The number of pixels that is read from the header of an image, before it is decoded."""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.crafted_images import build_bmp
from tests.unit.worker.vision.encoding import MAX, RED, avif_box, encoded, noise
from worker.vision import imaging


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}), ("PNG", {}), ("GIF", {}), ("BMP", {}), ("WEBP", {}), ("WEBP", {"lossless": True}),
        ("WEBP", {"save_all": True, "append_images": [RED.resize((64, 48))]}), ("AVIF", {}), ("TIFF", {}), ("TIFF", {"compression": "jpeg"}),
    ],
)  # fmt: skip
def test_the_pixel_count_is_read_from_the_header(kind: str, options: dict[str, Any]) -> None:
    data = encoded(noise((64, 48)), kind, **options)
    assert imaging.read_pixel_count(data) == 64 * 48
    assert imaging.read_pixel_count(data[:12]) is None


def test_the_pixel_count_of_a_bmp_with_a_negative_height_or_the_oldest_header_is_read() -> None:
    assert imaging.read_pixel_count(build_bmp((64, -48), 24, b"")) == 64 * 48
    assert imaging.read_pixel_count(b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 64, 48, 1, 24)) == 64 * 48


def test_the_size_of_a_gif_includes_its_whole_first_frame() -> None:
    small_screen = b"GIF89a\1\0\1\0\0\0\0" + b"!\xfe\1x\0" + b"," + struct.pack("<HHHH", 4, 8, 60, 40) + b"\0\2\2D\1\0;"
    assert imaging.read_pixel_count(small_screen) == 64 * 48
    assert imaging.read_pixel_count(small_screen[:13] + b"!\xfe" + b"\1x" * 50_000 + b"\0" + small_screen[18:]) is None


def test_the_size_of_an_avif_is_that_of_its_largest_item() -> None:
    plain, with_alpha = encoded(noise(), "AVIF"), encoded(noise().convert("RGBA"), "AVIF")
    smaller = avif_box(b"ispe", struct.pack(">III", 0, 8, 8))
    begin, meta = plain.index(b"meta") - 4, struct.unpack_from(">I", plain, plain.index(b"meta") - 4)[0]
    thumbnailed = plain[:begin] + struct.pack(">I", meta + len(smaller)) + plain[begin + 4 : begin + meta] + smaller + plain[begin + meta :]
    for data in (plain, with_alpha, thumbnailed):
        assert imaging.read_pixel_count(data) == 64 * 48


def single_strip_tiff(fields: list[tuple[int, int, int, int]], strip: bytes) -> bytes:
    """Return a TIFF with one strip after its directory, which begins at byte 8.

    :param fields: tag, type, count and value of each field.
    """
    rows = sorted([*fields, (273, 4, 1, 8 + 2 + 12 * (len(fields) + 2) + 4), (279, 4, 1, len(strip))], key=lambda row: row[0])
    return b"II*\0" + struct.pack("<IH", 8, len(rows)) + b"".join(struct.pack("<HHII", *row) for row in rows) + bytes(4) + strip


def files_with_misleading_sizes() -> Iterator[bytes]:
    """Yield files that a decoder may read as larger than their header suggests."""
    strip = zlib.compress(bytes(300 * 260))
    common = [(258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1), (278, 3, 1, 260)]
    for kind in (8, 9, 13):
        yield single_strip_tiff([(256, kind, 1, 300), (257, kind, 1, 260), *common], strip)
    for first, second in (((256, 3, 1, 300), (256, 3, 1, 1)), ((256, 4, 1, 300), (256, 99, 1, 1))):
        yield single_strip_tiff([first, second, (257, 3, 1, 260), *common], strip)
    whole = encoded(noise(), "AVIF")
    yield whole + avif_box(b"meta", bytes(4), avif_box(b"ispe", struct.pack(">III", 0, 8, 8)))
    sequence = encoded(noise(), "AVIF", save_all=True, append_images=[RED.resize((64, 48))])
    begin = sequence.index(b"moov") - 4
    moov = sequence[begin : begin + struct.unpack_from(">I", sequence, begin)[0]]
    yield sequence.replace(b"moov", b"free", 1) + avif_box(b"free") * 20 + moov


@pytest.mark.parametrize("data", [pytest.param(file, id=str(number)) for number, file in enumerate(files_with_misleading_sizes())])
def test_the_pixel_count_is_never_below_that_of_the_decoded_image(data: bytes) -> None:
    """Otherwise eight images of fifty megapixels would be decoded at the same time."""
    count = imaging.read_pixel_count(data)
    height, width = imaging.decode(data, max_pixels=MAX).rgb.shape[:2]
    assert count is None or count >= height * width


def test_the_pixel_count_is_unknown_where_only_a_decoder_could_tell() -> None:
    sequence = encoded(noise(), "AVIF", save_all=True, append_images=[RED.resize((64, 48))])
    fields = [(tag, 4, 1, 64) for tag in (256, 257, *range(60_000, 60_063))]
    many_fields = b"II*\0" + struct.pack("<IH", 8, len(fields)) + b"".join(struct.pack("<HHII", *row) for row in fields) + bytes(4)
    items = struct.pack(">I4s", 70_000, b"meta").ljust(60_000, b"\0") + b"ispe" + struct.pack(">III", 0, 64, 48)
    avif = b"\0\0\0\x0cftypavif" + items.ljust(70_000, b"\0")
    for data in (sequence, many_fields, avif, b"", b"text", b"RIFF\4\0\0\0WEBP"):
        assert imaging.read_pixel_count(data) is None
