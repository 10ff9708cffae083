"""Functions that build image files byte by byte, including files that no encoder writes."""

import base64
import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from PIL import Image

SIZE: Final = (96, 64)
ZLIB_FAST: Final = 1
"""Compression level for bombs, whose tens of megabytes would otherwise take most of the time that the corpus takes."""


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


def scan_data_offset(jpeg: bytes) -> int:
    """Return the offset at which the compressed pixels of the first scan begin."""
    at = jpeg.index(b"\xff\xda")
    return at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")


def with_scan_parameters(jpeg: bytes, parameters: bytes) -> bytes:
    """Return a JPEG whose first scan has other parameters: the coefficients and bits that it contains (T.81, B.2.3)."""
    at = scan_data_offset(jpeg)
    return jpeg[: at - 3] + parameters + jpeg[at:]


def with_padded_restarts(jpeg: bytes, padding: Callable[[int], bytes]) -> bytes:
    """Return a JPEG of one scan with bytes in front of each restart marker.

    :param padding: returns these bytes for the offset at which they are inserted.
    """
    at = scan_data_offset(jpeg)
    data = re.sub(rb"\xff[\xd0-\xd7]", lambda marker: padding(at + marker.start()) + marker[0], jpeg[at:-2])
    return jpeg[:at] + data + jpeg[-2:]


def with_padded_scans(jpeg: bytes, padding: bytes) -> bytes:
    """Return a JPEG of several scans with bytes at the end of each scan."""
    padded, at = b"", 2
    while jpeg[at + 1] != 0xD9:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] == 0xDA:
            following = re.compile(rb"\xff[^\x00\xd0-\xd7]").search(jpeg, end)
            padded += jpeg[at : following.start()] + padding  # type: ignore[union-attr]
            at = following.start()  # type: ignore[union-attr]
        else:
            padded, at = padded + jpeg[at:end], end
    return jpeg[:2] + padded + jpeg[at:]


def encode_split_jpeg(image: Image.Image) -> bytes:
    """Return a sequential JPEG in which each component has a scan of its own.

    The scans are those of grey JPEGs of the components, which have the same blocks if the chroma samples are not shared.
    """
    planes = [encode_image(plane, "JPEG", quality=90) for plane in image.convert("RGB").convert("YCbCr").split()]
    head = planes[0][: planes[0].index(b"\xff\xc0")]
    tables = planes[0][planes[0].index(b"\xff\xc4") : planes[0].index(b"\xff\xda")]
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, image.height, image.width, 3)
    frame += b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    scans = b"".join(
        b"\xff\xda" + struct.pack(">HBBB", 8, 1, number, 0) + b"\0\x3f\0" + plane[scan_data_offset(plane) : -2]
        for number, plane in enumerate(planes, 1)
    )
    return head + frame + tables + scans + b"\xff\xd9"


def cut_and_closed_jpeg(jpeg: bytes) -> bytes:
    """Return the first half of a JPEG, followed by an end-of-image marker."""
    return jpeg[: len(jpeg) // 2] + b"\xff\xd9"


def encode_ycck_jpeg(image: Image.Image) -> bytes:
    """Return a CMYK JPEG whose Adobe marker declares that the first three channels are stored as YCC."""
    cmyk = encode_image(image.convert("CMYK"), "JPEG")
    at = cmyk.index(b"Adobe")
    return cmyk[: at + 11] + b"\2" + cmyk[at + 12 :]


def build_exif(fields: dict[int, tuple[int, bytes]], order: str = "<", header: bytes = b"Exif\0\0") -> bytes:
    """Return EXIF data of one directory.

    :param fields: the type and the bytes of each field, by tag.
    :param order: the byte order as in ``struct``: ``<`` or ``>``.
    """
    rows, values = b"", b""
    for tag, (kind, value) in sorted(fields.items()):
        place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(order + "I", 14 + 12 * len(fields) + len(values))
        values += value if len(value) > 4 else b""
        rows += struct.pack(order + "HHI", tag, kind, len(value) // {3: 2, 4: 4}.get(kind, 1)) + place
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, len(fields))
    return header + start + rows + bytes(4) + values


def xmp_orientation(orientation: int) -> bytes:
    """Return XMP data that name an orientation."""
    description = f'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{orientation}"/>'
    rdf = f'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{description}</rdf:RDF>'
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{rdf}</x:xmpmeta>'.encode()


def overlapping_exif() -> bytes:
    """Return EXIF data with 5000 fields that all point to the same 64 KB. A parser that copies them needs 300 MB."""
    rows = b"".join(struct.pack("<HHII", 10_000 + tag, 3, 32_000, 0) for tag in range(5000))
    return b"Exif\0\0" + (b"II*\0\x08\0\0\0" + struct.pack("<H", 5000) + rows).ljust(65_000, b"\0")


def wide_gamut_profile(gamma: float = 2.2, *, space: bytes = b"RGB ", extra_tags: dict[bytes, bytes] | None = None) -> bytes:
    """Return a colour profile with primaries like those of ProPhoto RGB, or of the greys if ``space`` is ``GRAY``.

    It contains a matrix and curves (ICC.1:2022, 8.3 and 8.5). The colour of its white is that of the standard.
    """

    def numbers(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(79)
    tags = {b"desc": description, b"cprt": b"text\0\0\0\0none\0", b"wtpt": numbers(0.9642, 1, 0.8249)}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        tags |= {b"rXYZ": numbers(0.7977, 0.2880, 0), b"gXYZ": numbers(0.1352, 0.7119, 0), b"bXYZ": numbers(0.0313, 0.0001, 0.8249)}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return _build_profile(space, b"XYZ ", tags | (extra_tags or {}))


def grey_ink_profile() -> bytes:
    """Return a profile of four inks, each of which looks grey: black is black, and any other one takes a third."""
    levels = [(1 - k) * (1 - (c + m + y) / 3) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    table = b"".join(bytes([round(255 * level), 128, 128]) for level in levels)
    identity = struct.pack(">9i", *(65536 * (index % 4 == 0) for index in range(9)))
    ramp = bytes(range(256))
    return _build_profile(b"CMYK", b"Lab ", {b"A2B0": b"mft1\0\0\0\0\4\3\2\0" + identity + 4 * ramp + table + 3 * ramp})


def _build_profile(space: bytes, connection_space: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body = b"", b""
    for name, value in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s12s4s", 132 + len(table) + len(body), b"none", 0x02400000, b"mntr", space, connection_space, bytes(12), b"acsp")
    white = struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(68, b"\0") + white + bytes(48) + struct.pack(">I", len(tags)) + table + body


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
    return png_chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(100_000_000), ZLIB_FAST))


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


def build_alpha_bmp(image: Image.Image, alpha: int, *, header_length: int = 108) -> bytes:
    """Return a BMP of 32 bits with a mask for alpha, which is the same for all pixels.

    :param header_length: 108 for BITMAPV4HEADER, 124 for BITMAPV5HEADER.
    """
    red, green, blue = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).split()
    pixels = Image.merge("RGBA", (blue, green, red, Image.new("L", image.size, alpha))).tobytes()
    head = struct.pack("<IiiHHIIiiII", header_length, *image.size, 1, 32, 3, len(pixels), 2835, 2835, 0, 0)
    head += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs"
    begin = 14 + header_length
    return b"BM" + struct.pack("<IHHI", begin + len(pixels), 0, 0, begin) + head.ljust(header_length, b"\0") + pixels


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
    chain = np.zeros(400_000, [("entries", "<u2"), ("next", "<u4")])
    chain["next"] = 132 + 6 * np.arange(400_000)
    return first + bytes(126 - len(first)) + chain.tobytes()


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
