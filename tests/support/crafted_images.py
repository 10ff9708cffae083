"""Functions that build image files byte by byte, including files that no encoder writes."""

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from PIL import Image

SIZE: Final = (96, 64)


def draw_image(seed: int = 1, size: tuple[int, int] = SIZE) -> Image.Image:
    """Return an image of coloured blocks with noise. No two rows are equal, so a test can detect a missing row."""
    source = np.random.default_rng(seed)
    blocks = source.integers(0, 224, (8, 8, 3), np.uint8)
    large = np.asarray(Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST))
    return Image.fromarray(large + source.integers(0, 32, large.shape, np.uint8))


def encode_image(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Encode an image with Pillow. ``kind`` is Pillow's name for the format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_jpeg_segment(jpeg: bytes, marker: int, payload: bytes, times: int = 1) -> bytes:
    return jpeg[:2] + (bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload) * times + jpeg[2:]


def jpeg_segments(jpeg: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, the start offset, and the end offset of each segment before the scan data."""
    offset = 2
    while jpeg[offset + 1] != 0xDA:
        end = offset + 2 + int.from_bytes(jpeg[offset + 2 : offset + 4], "big")
        yield jpeg[offset + 1], offset, end
        offset = end


def without_jpeg_segments(jpeg: bytes, marker: int) -> bytes:
    for _, begin, end in reversed([segment for segment in jpeg_segments(jpeg) if segment[0] == marker]):
        jpeg = jpeg[:begin] + jpeg[end:]
    return jpeg


def with_jpeg_size(jpeg: bytes, width: int, height: int) -> bytes:
    at = next(begin for marker, begin, _ in jpeg_segments(jpeg) if marker == 0xC0)
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def with_repeated_scan(progressive: bytes, times: int) -> bytes:
    """Return a progressive JPEG that contains its last scan ``times`` more times."""
    at = progressive.rindex(b"\xff\xda")
    return progressive[:-2] + progressive[at:-2] * times + progressive[-2:]


def cut_and_closed_jpeg(jpeg: bytes) -> bytes:
    """Return the first half of a JPEG, followed by an end-of-image marker."""
    return jpeg[: len(jpeg) // 2] + b"\xff\xd9"


def encode_ycck_jpeg(image: Image.Image) -> bytes:
    """Return a CMYK JPEG whose Adobe marker declares that the first three channels are stored as YCC."""
    cmyk = encode_image(image.convert("CMYK"), "JPEG")
    at = cmyk.index(b"Adobe")
    return cmyk[: at + 11] + b"\2" + cmyk[at + 12 :]


def overlapping_exif() -> bytes:
    """Return EXIF data with 5000 fields that all point to the same 64 KB. A parser that copies them needs 300 MB."""
    rows = b"".join(struct.pack("<HHII", 10_000 + tag, 3, 32_000, 0) for tag in range(5000))
    return b"Exif\0\0" + (b"II*\0\x08\0\0\0" + struct.pack("<H", 5000) + rows).ljust(65_000, b"\0")


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def build_png(size: tuple[int, int], pixels: bytes, extra_chunks: bytes = b"", *, after_pixels: bytes = b"", colour_type: int = 2, interlaced: int = 0) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, colour_type, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + head + extra_chunks + png_chunk(b"IDAT", pixels) + after_pixels + png_chunk(b"IEND", b"")


def png_rows(image: Image.Image) -> bytes:
    """Return the rows of an image, each with filter type 0 (no filter)."""
    return b"".join(b"\0" + row.tobytes() for row in np.asarray(image))


def interlaced_png_rows(image: Image.Image, passes: int = 7) -> bytes:
    """Return the rows of an image in Adam7 order (PNG specification, section 8). Pillow can only read this order."""
    pixels = np.asarray(image)
    steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)][:passes]
    parts = [pixels[y::down, x::right] for y, x, down, right in steps]
    return b"".join(png_rows(Image.fromarray(part)) for part in parts if part.size)


def with_wrong_png_checksum(png: bytes, name: bytes) -> bytes:
    at = png.index(name)
    end = at + 4 + int.from_bytes(png[at - 4 : at], "big")
    return png[:end] + bytes([png[end] ^ 1]) + png[end + 1 :]


def png_text_bomb() -> bytes:
    return png_chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(100_000_000)))


def build_noisy_gif(noise: bytes) -> bytes:
    """Return a GIF with one frame of 300 by 300 pixels whose data blocks are noise."""
    frame = b"GIF89a\x2c\1\x2c\1\0\0\0,\0\0\0\0\x2c\1\x2c\1\0\x08"
    blocks = b"".join(b"\xff" + noise[at : at + 255] for at in range(0, len(noise) - 255, 255))
    return frame + blocks + b"\0;"


def build_bmp(size: tuple[int, int], bits: int, pixels: bytes, *, compression: int = 0, colours: int = 0) -> bytes:
    palette = b"".join(bytes([grey, 255 - grey, grey, 0]) for grey in range(colours))
    head = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, compression, len(pixels), 2835, 2835, colours, 0)
    begin = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", begin + len(pixels), 0, 0, begin) + head + palette + pixels


def build_run_length_bmp() -> bytes:
    """Return a run-length-encoded BMP. Each row is one run and an end-of-line code; the last code is end-of-bitmap."""
    rows = b"".join(bytes([SIZE[0], grey, 0, 0]) for grey in range(SIZE[1]))
    return build_bmp(SIZE, 8, rows[:-2] + b"\0\1", compression=1, colours=256)


def build_tiff(order: str, fields: dict[int, int], following: int = 0, pixels: bytes = b"\0\x55\xaa\xff") -> bytes:
    """Return a TIFF that has its pixels at offset 8, followed by one directory.

    :param order: the byte order as in ``struct``: ``<`` or ``>``.
    :param fields: the value of each field, by tag.
    :param following: the offset of the next directory; 0 means that there is none.
    """
    rows = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8 + len(pixels))
    return head + pixels + struct.pack(order + "H", len(fields)) + rows + struct.pack(order + "I", following)


def with_halved_tiff_field(tiff: bytes, tag: int, *, values: bool = False) -> bytes:
    """Return a TIFF with the number of values in a field halved, or with its only value halved if ``values`` is set."""
    (at,) = struct.unpack_from("<I", tiff, 4)
    while struct.unpack_from("<H", tiff, at + 2)[0] != tag:
        at += 12
    at += 10 if values else 6
    return tiff[:at] + struct.pack("<I", struct.unpack_from("<I", tiff, at)[0] // 2) + tiff[at + 4 :]


def tiff_with_overlapping_directories() -> bytes:
    """Return a TIFF with a valid first page and a chain of 400,000 empty directories of six bytes each."""
    first = build_tiff("<", {256: 4, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 4}, following=126)
    chain = b"".join(struct.pack("<HI", 0, 132 + 6 * number) for number in range(400_000))
    return first + bytes(126 - len(first)) + chain


def ten_bit_avif() -> bytes:
    """Return an AVIF of 8 by 8 red and blue pixels with 10 bits per channel.

    libavif's ``avifenc -d 10 -y 444`` encoded it, because Pillow can write only 8 bits.
    """
    return base64.b64decode(
        "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAADybWV0YQAAAAAAAAAoaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAGxpYmF2aWYAAAAADnBpdG0A"
        "AAAAAAEAAAAeaWxvYwAAAABEAAABAAEAAAABAAABGgAAAC8AAAAoaWluZgAAAAAAAQAAABppbmZlAgAAAAABAABhdjAxQ29sb3IAAAAAamlwcnAAAABLaXBjbwAA"
        "ABRpc3BlAAAAAAAAAAgAAAAIAAAAEHBpeGkAAAAAAwoKCgAAAAxhdjFDgSBAAAAAABNjb2xybmNseAABAA0ABoAAAAAXaXBtYQAAAAAAAAABAAEEAQKDBAAAADdt"
        "ZGF0EgAKCDgIv2MBDQaQMiEWQAkkkkUAQcG93y1UMuQHplcx5xkG3i9J/XdiYlHIsNo="
    )


def with_avif_size(avif: bytes, width: int, height: int) -> bytes:
    at = avif.index(b"ispe") + 8
    return avif[:at] + struct.pack(">II", width, height) + avif[at + 8 :]
