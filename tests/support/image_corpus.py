"""A generated corpus of image files that cameras, browsers, or attackers may send, each with its expected outcome."""

import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from shared.media_types import SIGNATURES
from tests.support.crafted_images import (
    SIZE,
    ZLIB_FAST,
    build_alpha_bmp,
    build_bmp,
    build_noisy_gif,
    build_png,
    build_run_length_bmp,
    build_tiff,
    cut_and_closed_jpeg,
    draw_image,
    encode_image,
    encode_ycck_jpeg,
    interlaced_png_rows,
    overlapping_exif,
    png_chunk,
    png_rows,
    png_text_bomb,
    ten_bit_avif,
    tiff_with_overlapping_directories,
    wide_gamut_profile,
    with_avif_size,
    with_halved_tiff_field,
    with_jpeg_segment,
    with_jpeg_size,
    with_padded_restarts,
    with_repeated_scan,
    with_scan_parameters,
    with_wrong_png_checksum,
    without_jpeg_segments,
)
from worker.vision.errors import CODES

MAX_PIXELS: Final = 2_000_000
"""The pixel limit with which tests decode the corpus. Files that are expected to exceed this limit also exceed the
service's limit of 50 megapixels."""
_ORIENTATIONS: Final = range(1, 9)


@dataclass(frozen=True, slots=True)
class ImageCase:
    """A file with its expected outcome, which is either the format of the decoded image or an error code."""

    name: str
    data: bytes
    outcome: str

    def __post_init__(self) -> None:
        # Fail early if the outcome is misspelled.
        assert self.outcome in SIGNATURES.keys() | CODES.keys(), self.outcome

    @property
    def is_decodable(self) -> bool:
        """Whether the file must be decoded without an error."""
        return self.outcome in SIGNATURES


def intact_files() -> dict[str, bytes]:
    """Return a valid file for each way of storing pixels, by name.

    If any of these files is cut, a decoder must detect this.
    """
    image, frames = draw_image(), [draw_image(seed) for seed in (2, 3)]
    animation: dict[str, Any] = {"save_all": True, "append_images": frames}
    files = {
        "jpeg": encode_image(image, "JPEG"),
        "jpeg progressive": encode_image(image, "JPEG", progressive=True),
        "jpeg cmyk progressive": encode_image(image.convert("CMYK"), "JPEG", progressive=True),
        "png": encode_image(image, "PNG"),
        "png palette": encode_image(image.quantize(64), "PNG"),
        "png interlaced": build_png(SIZE, zlib.compress(interlaced_png_rows(image)), interlaced=1),
        "png animated": encode_image(image, "PNG", **animation),
        "gif": encode_image(image, "GIF", interlace=0),
        "gif interlaced": encode_image(image, "GIF", interlace=1),
        "gif animated": encode_image(image, "GIF", **animation),
        "bmp": encode_image(image, "BMP"),
        "bmp palette": encode_image(image.quantize(64), "BMP"),
        "bmp run lengths": build_run_length_bmp(),
        "tiff": encode_image(image, "TIFF"),
        "tiff pages": encode_image(image, "TIFF", **animation),
        "webp": encode_image(image, "WEBP"),
        "webp lossless": encode_image(image, "WEBP", lossless=True),
        "webp animated": encode_image(image, "WEBP", **animation),
        "avif": encode_image(image, "AVIF"),
        "avif animated": encode_image(image, "AVIF", **animation),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        files[f"tiff {compression}"] = encode_image(image, "TIFF", compression=compression)
    return files


def build_corpus() -> list[ImageCase]:
    """Return all cases of the corpus. Every call returns the same bytes."""
    generators = (_jpegs, _pngs, _gifs, _bmps, _tiffs, _webps, _avifs, _other_files)
    return [ImageCase(*row) for generate in generators for row in generate()]


Row = tuple[str, bytes, str]


def _jpegs() -> Iterator[Row]:
    image = draw_image()
    whole = encode_image(image, "JPEG")
    progressive = encode_image(image, "JPEG", progressive=True)
    yield from (
        ("jpeg optimized", encode_image(image, "JPEG", optimize=True), "jpeg"),
        ("jpeg restart markers", encode_image(image, "JPEG", restart_marker_blocks=2), "jpeg"),
        ("jpeg grey", encode_image(image.convert("L"), "JPEG"), "jpeg"),
        ("jpeg 4:4:4", encode_image(image, "JPEG", subsampling=0), "jpeg"),
        ("jpeg stored as rgb", encode_image(image, "JPEG", keep_rgb=True), "jpeg"),
        ("jpeg cmyk", encode_image(image.convert("CMYK"), "JPEG"), "jpeg"),
        ("jpeg ycck", encode_ycck_jpeg(image), "jpeg"),
        ("jpeg cmyk cut and closed", cut_and_closed_jpeg(encode_image(image.convert("CMYK"), "JPEG")), "truncated"),
        ("jpeg ycck cut and closed", cut_and_closed_jpeg(encode_ycck_jpeg(image)), "truncated"),
        ("jpeg cut and closed", cut_and_closed_jpeg(whole), "truncated"),
        ("jpeg grey cut and closed", cut_and_closed_jpeg(encode_image(image.convert("L"), "JPEG")), "truncated"),
        ("jpeg 12000 by 1", encode_image(draw_image(1, (12_000, 1)), "JPEG"), "jpeg"),
        ("jpeg 1 by 1", encode_image(draw_image(1, (1, 1)), "JPEG"), "jpeg"),
        ("jpeg 65535 by 65535", with_jpeg_size(whole, 65_535, 65_535), "too_many_pixels"),
        ("jpeg without a size", with_jpeg_size(whole, 0, 0), "corrupt"),
        ("jpeg of 12 bits", whole.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c"), "corrupt"),
        ("jpeg with an arithmetic frame header", whole.replace(b"\xff\xc0\x00\x11", b"\xff\xc9\x00\x11"), "corrupt"),
        ("jpeg with a lossless frame header", whole.replace(b"\xff\xc0\x00\x11", b"\xff\xc3\x00\x11"), "corrupt"),
        ("jpeg with a hierarchical frame header", whole.replace(b"\xff\xc0\x00\x11", b"\xff\xc5\x00\x11"), "corrupt"),
        ("jpeg without huffman tables, as in motion jpeg", without_jpeg_segments(whole, 0xC4), "jpeg"),
        ("jpeg with broken exif", with_jpeg_segment(whole, 0xE1, b"Exif\0\0MM\0*\0\0\xff\xff"), "jpeg"),
        ("jpeg with exif of nonsense", with_jpeg_segment(whole, 0xE1, b"Exif\0\0" + bytes(range(256))), "jpeg"),
        ("jpeg with exif that overlaps", with_jpeg_segment(whole, 0xE1, overlapping_exif()), "jpeg"),
        ("jpeg with 30 segments of 64 KB", with_jpeg_segment(whole, 0xEE, bytes(65_000), 30), "jpeg"),
        ("jpeg with 11000 segments", with_jpeg_segment(whole, 0xEE, b"", 11_000), "corrupt"),
        ("jpeg with 4000 segments of exif", with_jpeg_segment(whole, 0xE1, b"Exif\0\0" + bytes(500), 4000), "corrupt"),
        ("jpeg with 5 MB of fill bytes", whole[:2] + b"\xff" * 5_000_000 + whole[2:], "jpeg"),
        ("jpeg with a colour profile of nonsense", encode_image(image, "JPEG", icc_profile=b"nonsense" * 99), "jpeg"),
        ("jpeg with a colour profile cut short", encode_image(image, "JPEG", icc_profile=bytes(3)), "jpeg"),
        ("jpeg with several images", encode_image(image, "MPO", save_all=True, append_images=[draw_image(2)]), "jpeg"),
        ("jpeg with 3000 scans", with_repeated_scan(progressive, 3000), "corrupt"),
        ("jpeg without its end marker", whole[:-2], "jpeg"),
        ("jpeg without its end marker and the last byte of its pixels", whole[:-3], "truncated"),
        ("jpeg progressive without its end marker", progressive[:-2], "truncated"),
        ("jpeg with spaces before its end marker", whole[:-2] + b" " * 16 + whole[-2:], "jpeg"),
        ("jpeg with trailing data", whole + b"\xff\xd8\xff" * 1000, "jpeg"),
        ("jpeg after a second start marker", b"\xff\xd8" + whole, "corrupt"),
        ("jpeg that is a thumbnail only", with_jpeg_segment(whole, 0xE1, b"Exif\0\0" + whole)[: len(whole)], "truncated"),
        ("jpeg with scan parameters of zeros", with_scan_parameters(whole, bytes(3)), "jpeg"),
        ("jpeg with zeros before its end marker", whole[:-2] + bytes(600) + whole[-2:], "jpeg"),
        ("jpeg with zeros before its restart markers", with_padded_restarts(encode_image(image, "JPEG", restart_marker_blocks=1), lambda _: bytes(9)), "jpeg"),
        ("jpeg cut, with zeros before its end marker", cut_and_closed_jpeg(whole)[:-2] + bytes(600) + whole[-2:], "truncated"),
        ("jpeg with text before its end marker", whole[:-2] + b"more compressed pixels" + whole[-2:], "corrupt"),
        ("jpeg of a wide gamut", encode_image(image, "JPEG", icc_profile=wide_gamut_profile()), "jpeg"),
        ("jpeg of a start and an end marker", b"\xff\xd8\xff\xd9", "corrupt"),
    )
    for orientation in _ORIENTATIONS:
        exif = Image.Exif()
        exif[0x112] = orientation
        yield f"jpeg with orientation {orientation}", encode_image(image, "JPEG", exif=exif), "jpeg"
    for tenth in range(1, 10):
        yield f"jpeg cut at {tenth} tenths", whole[: len(whole) * tenth // 10], "truncated"
        yield f"jpeg progressive cut at {tenth} tenths", progressive[: len(progressive) * tenth // 10], "truncated"


def _pngs() -> Iterator[Row]:
    image = draw_image()
    whole = encode_image(image, "PNG")
    deep = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    for bits in (1, 2, 4, 8):
        yield f"png palette of {bits} bits", encode_image(image.quantize(2**bits), "PNG", bits=bits), "png"
    for mode in ("1", "L", "LA", "RGBA"):
        yield f"png {mode}", encode_image(image.convert(mode), "PNG"), "png"
    rows = png_rows(image)
    yield from (
        ("png 16 bits", encode_image(deep, "PNG"), "png"),
        ("png palette with transparency", encode_image(image.quantize(9), "PNG", transparency=3), "png"),
        ("png rgb with transparency", encode_image(image, "PNG", transparency=(1, 2, 3)), "png"),
        ("png interlaced", build_png(SIZE, zlib.compress(interlaced_png_rows(image)), interlaced=1), "png"),
        ("png animated", encode_image(image, "PNG", save_all=True, append_images=[draw_image(2)]), "png"),
        ("png whose stream ends before its last row", build_png(SIZE, zlib.compress(rows[: -len(rows) // SIZE[1]])), "truncated"),
        ("png whose stream is one byte short", build_png(SIZE, zlib.compress(rows[:-1])), "truncated"),
        ("png with a short stream and 100000 chunks after it", build_png(SIZE, zlib.compress(rows[:-1]), after_pixels=png_chunk(b"IDAT", b"\0") * 100_000), "truncated"),
        ("png interlaced whose stream ends before its last pass", build_png(SIZE, zlib.compress(interlaced_png_rows(image, passes=6)), interlaced=1), "truncated"),
        ("png with a wrong checksum of its pixels", with_wrong_png_checksum(whole, b"IDAT"), "corrupt"),
        ("png with a wrong checksum of its header", with_wrong_png_checksum(whole, b"IHDR"), "corrupt"),
        ("png without its end", whole[:-12], "truncated"),
        ("png with a bomb after its rows", build_png(SIZE, zlib.compress(rows + bytes(60_000_000), ZLIB_FAST)), "png"),
        ("png with a bomb of text", build_png(SIZE, zlib.compress(rows), png_text_bomb()), "png"),
        ("png with a long compressed text", build_png(SIZE, zlib.compress(rows), png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2_000_000)))), "png"),
        ("png with a bomb for a colour profile", build_png(SIZE, zlib.compress(rows), png_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(100_000_000), ZLIB_FAST))), "png"),
        ("png with two headers", build_png(SIZE, zlib.compress(rows), whole[8:33]), "corrupt"),
        ("png 100000 by 100000", build_png((100_000, 100_000), b""), "too_many_pixels"),
        ("png 65501 by 1", build_png((65_501, 1), b""), "too_many_pixels"),
        ("png without a size", build_png((0, 0), b""), "corrupt"),
        ("png of 2^31 columns", build_png((2**31, 1), b""), "too_many_pixels"),
        ("png of an unknown colour type", build_png(SIZE, zlib.compress(rows), colour_type=5), "corrupt"),
        ("png with pixels of nonsense", build_png(SIZE, b"nonsense" * 99), "corrupt"),
        ("png of an end chunk only", whole[:8] + whole[-12:], "corrupt"),
        ("png with trailing data", whole + whole, "png"),
    )
    for name in (b"iCCP", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fcTL"):
        for nonsense in (b"", b"k\0\7nonsense"):
            odd = png_chunk(name, nonsense)
            yield f"png with {name.decode()} of {len(nonsense)} bytes", build_png(SIZE, zlib.compress(rows), odd), "png"
            yield f"png with a wrong checksum of {name.decode()}, {len(nonsense)} bytes", build_png(SIZE, zlib.compress(rows), with_wrong_png_checksum(odd, name)), "png"


def _gifs() -> Iterator[Row]:
    image = draw_image()
    whole = encode_image(image, "GIF")
    several = encode_image(image, "GIF", save_all=True, append_images=[draw_image(2), draw_image(3)])
    head, frame = whole[:13] + whole[13:781], b",\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    yield from (
        ("gif animated", several, "gif"),
        ("gif interlaced", encode_image(image, "GIF", interlace=1), "gif"),
        ("gif transparent", encode_image(image.quantize(9), "GIF", transparency=2), "gif"),
        ("gif without frames", head + b";", "corrupt"),
        ("gif without its end", whole[:-1], "truncated"),
        ("gif cut in its second frame", several[: len(several) // 2], "truncated"),
        ("gif with a huge screen", b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + whole[10:], "too_many_pixels"),
        ("gif with a huge frame", head + b",\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0;", "too_many_pixels"),
        ("gif of 50000 frames", head + frame * 50_000 + b";", "gif"),
        ("gif with a block of an unknown kind", head + frame + b"\x99" + frame + b";", "corrupt"),
        ("gif with an impossible code size", head + b",\0\0\0\0\1\0\1\0\0\x0d\2D\1\0;", "corrupt"),
    )


def _bmps() -> Iterator[Row]:
    image = draw_image()
    whole = encode_image(image, "BMP")
    for mode in ("1", "L", "P", "RGBA"):
        yield f"bmp {mode}", encode_image(image.convert(mode), "BMP"), "bmp"
    yield from (
        ("bmp 16 bits", build_bmp(SIZE, 16, bytes(2 * SIZE[0] * SIZE[1])), "bmp"),
        ("bmp 4 bits", build_bmp(SIZE, 4, bytes(SIZE[0] * SIZE[1] // 2), colours=16), "bmp"),
        ("bmp top down", build_bmp((SIZE[0], -SIZE[1]), 24, bytes(3 * SIZE[0] * SIZE[1])), "bmp"),
        ("bmp whose alpha is zero", build_alpha_bmp(image, 0), "bmp"),
        ("bmp run lengths", build_run_length_bmp(), "bmp"),
        ("bmp run lengths that end early", build_bmp(SIZE, 8, b"\x60\1\0\0" * 9, compression=1, colours=256), "corrupt"),
        ("bmp huge", build_bmp((2**31 - 1, 2**31 - 1), 24, b""), "too_many_pixels"),
        ("bmp without a size", build_bmp((0, 0), 24, b""), "corrupt"),
        ("bmp with its pixels beyond the end", whole[:10] + b"\xff\xff\xff\x7f" + whole[14:], "truncated"),
        ("bmp of 7 bits", whole[:28] + b"\7" + whole[29:], "unsupported_format"),
        ("bmp of 64 bits", build_bmp(SIZE, 64, bytes(8 * SIZE[0] * SIZE[1])), "unsupported_format"),
        ("bmp with a jpeg inside", build_bmp(SIZE, 0, encode_image(image, "JPEG"), compression=4), "unsupported_format"),
        ("bmp with a png inside", build_bmp(SIZE, 0, encode_image(image, "PNG"), compression=5), "unsupported_format"),
        ("bmp of an unknown header", whole[:14] + b"\x11" + whole[15:], "unsupported_format"),
        ("bmp cut", whole[: len(whole) // 2], "truncated"),
    )


def _tiffs() -> Iterator[Row]:
    image = draw_image()
    whole = encode_image(image, "TIFF")
    deep = np.asarray(image.convert("L"), np.uint16) * 257
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "lzma", "zstd"):
        yield f"tiff {compression}", encode_image(image, "TIFF", compression=compression), "tiff"
    strips = {"strip_size": 3 * 8 * SIZE[0]}
    for name, options in {"": {}, " of lzw": {"compression": "tiff_lzw"}, " of jpeg": {"compression": "jpeg"}}.items():
        striped = encode_image(image, "TIFF", **strips, **options)
        yield f"tiff strips{name}", striped, "tiff"
        yield f"tiff with half of its strips{name}", with_halved_tiff_field(striped, 273), "truncated"
    one_row = {256: 4, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 4}
    rgb = one_row | {256: 1, 262: 2, 277: 3}
    planes = one_row | {256: 2, 257: 2, 262: 2, 277: 3, 278: 2, 284: 2}
    tile = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 322: 16, 323: 16, 324: 8, 325: 256}
    yield from (
        ("tiff group 4", encode_image(image.convert("1"), "TIFF", compression="group4"), "tiff"),
        ("tiff 16 bits", encode_image(Image.fromarray(deep), "TIFF"), "tiff"),
        ("tiff float", encode_image(Image.fromarray(deep.astype(np.float32)), "TIFF"), "tiff"),
        ("tiff float of nan", encode_image(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"), "tiff"),
        ("tiff float of infinity", encode_image(Image.fromarray(np.full((9, 9), np.inf, np.float32)), "TIFF"), "tiff"),
        ("tiff cmyk", encode_image(image.convert("CMYK"), "TIFF"), "tiff"),
        ("tiff pages", encode_image(image, "TIFF", save_all=True, append_images=[draw_image(2)]), "tiff"),
        ("tiff big endian", build_tiff(">", one_row), "tiff"),
        ("tiff little endian", build_tiff("<", one_row), "tiff"),
        ("tiff of 20000 columns and rows", build_tiff("<", one_row | {256: 20_000, 257: 20_000}), "too_many_pixels"),
        ("tiff with its pixels beyond the end", build_tiff("<", one_row | {273: 10**9}), "truncated"),
        ("tiff with directories in a loop", build_tiff("<", one_row, following=12), "corrupt"),
        ("tiff with its next directory beyond the end", build_tiff("<", one_row, following=10**9), "truncated"),
        ("tiff with its directory beyond the end", b"II*\0\xff\xff\xff\x7f", "truncated"),
        ("tiff without a size", build_tiff("<", one_row | {256: 0}), "corrupt"),
        ("tiff of a raw photo", build_tiff("<", one_row | {254: 1, 330: 8}), "unsupported_format"),
        ("tiff of an unknown compression", build_tiff("<", one_row | {259: 31_000}), "unsupported_format"),
        ("tiff rgb of floats", build_tiff("<", rgb | {258: 32, 279: 12, 339: 3}, pixels=bytes(12)), "unsupported_format"),
        ("tiff rgb of 32 bits", build_tiff("<", rgb | {258: 32, 279: 12}, pixels=bytes(12)), "unsupported_format"),
        ("tiff grey of floats of 64 bits", build_tiff("<", one_row | {258: 64, 279: 32, 339: 3}, pixels=bytes(32)), "unsupported_format"),
        ("tiff grey of 7 bits", build_tiff("<", one_row | {258: 7}), "unsupported_format"),
        ("tiff grey with alpha", build_tiff("<", one_row | {256: 2, 277: 2, 338: 1}), "tiff"),
        ("tiff with subsampled colours", build_tiff("<", rgb | {256: 2, 262: 6, 530: 2}), "unsupported_format"),
        ("tiff with one strip of twice its rows", build_tiff("<", one_row | {257: 2, 278: 1}), "truncated"),
        ("tiff with strips of no rows", build_tiff("<", one_row | {278: 0}), "corrupt"),
        ("tiff with half of its bytes", with_halved_tiff_field(whole, 279, values=True), "truncated"),
        ("tiff with half of a jpeg", with_halved_tiff_field(encode_image(image, "TIFF", compression="jpeg"), 279, values=True), "truncated"),
        ("tiff with one plane of three", build_tiff("<", planes), "truncated"),
        ("tiff with planes of 16 bits", build_tiff("<", planes | {258: 16}), "unsupported_format"),
        ("tiff with one tile", build_tiff("<", tile, pixels=bytes(256)), "tiff"),
        ("tiff with one tile of two", build_tiff("<", tile | {256: 17}, pixels=bytes(256)), "truncated"),
        ("tiff with half of a tile", build_tiff("<", tile | {325: 128}, pixels=bytes(256)), "truncated"),
        ("tiff with 400000 overlapping directories", tiff_with_overlapping_directories(), "corrupt"),
        ("tiff cut", whole[: len(whole) // 2], "truncated"),
    )


def _webps() -> Iterator[Row]:
    image = draw_image()
    lossy = encode_image(image, "WEBP")
    several = encode_image(image, "WEBP", save_all=True, append_images=[draw_image(2)])
    canvas = b"VP8X\n\0\0\0\2\0\0\0" + b"\xff\x3f\0" * 2
    yield from (
        ("webp lossless", encode_image(image, "WEBP", lossless=True), "webp"),
        ("webp with alpha", encode_image(image.convert("RGBA"), "WEBP"), "webp"),
        ("webp animated", several, "webp"),
        ("webp cut", lossy[: len(lossy) // 2], "truncated"),
        ("webp cut in its second frame", several[:-100], "truncated"),
        ("webp of a huge canvas", b"RIFF" + struct.pack("<I", 22) + b"WEBP" + canvas, "too_many_pixels"),
        ("webp of a huge animation", several[:24] + b"\xff\x3f\0" * 2 + several[30:], "too_many_pixels"),
        ("webp of nonsense", lossy[:30] + b"\x5a" * (len(lossy) - 30), "corrupt"),
        ("webp of no chunk", b"RIFF\4\0\0\0WEBP", "corrupt"),
    )


def _avifs() -> Iterator[Row]:
    image = draw_image()
    whole = encode_image(image, "AVIF")
    pixels = whole.index(b"mdat") + 4
    yield from (
        ("avif with alpha", encode_image(image.convert("RGBA"), "AVIF"), "avif"),
        ("avif 4:4:4", encode_image(image, "AVIF", subsampling="4:4:4"), "avif"),
        ("avif of 10 bits", ten_bit_avif(), "avif"),
        ("avif animated", encode_image(image, "AVIF", save_all=True, append_images=[draw_image(2)]), "avif"),
        ("avif cut", whole[: len(whole) // 2], "truncated"),
        ("avif without its last byte", whole[:-1], "truncated"),
        ("avif with pixels of nonsense", whole[:pixels] + b"\x5a" * (len(whole) - pixels), "corrupt"),
        ("avif of one box", whole[:32], "corrupt"),
        ("avif huge", with_avif_size(whole, 60_000, 60_000), "corrupt"),
    )


def _other_files() -> Iterator[Row]:
    jpeg = encode_image(draw_image(), "JPEG")
    files = {
        "html": b"<!doctype html><script>alert(1)</script>",
        "html in front of a jpeg": b"<html></html>" + jpeg,
        "pdf": b"%PDF-1.7\n" + jpeg,
        "zip": b"PK\3\4" + bytes(90),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "text": b"no picture at all",
        "elf program": b"\x7fELF\2\1\1" + bytes(90),
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(90),
        "jpeg xl": b"\xff\x0a" + bytes(90),
        "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(90),
        "icon": b"\0\0\1\0\1\0" + bytes(90),
        "photoshop": b"8BPS\0\1" + bytes(90),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n" + bytes(90),
        "big tiff": b"II+\0\x08\0\0\0" + bytes(90),
        "one byte": b"\xff",
        "zeros": bytes(5000),
    }
    for name, data in files.items():
        yield name, data, "unsupported_format"
    yield "empty", b"", "empty"
    yield "a jpeg that is also html", with_jpeg_segment(jpeg, 0xFE, b"<script>alert(1)</script>"), "jpeg"
    source = random.Random(1)
    for kilobytes in (1, 10, 100):
        noise = source.randbytes(kilobytes * 1024)
        yield f"{kilobytes} KB of noise", b"\0" + noise, "unsupported_format"
        yield f"{kilobytes} KB of noise as jpeg", b"\xff\xd8\xff\xe0\0\x10JFIF\0" + noise, "truncated"
        yield f"{kilobytes} KB of noise as png", b"\x89PNG\r\n\x1a\n" + noise, "truncated"
        yield f"{kilobytes} KB of noise as gif", build_noisy_gif(noise), "corrupt"
        yield f"{kilobytes} KB of noise as bmp", b"BM" + bytes(12) + b"\x28\0\0\0" + noise, "unsupported_format"
        yield f"{kilobytes} KB of noise as tiff", b"II*\0\x08\0\0\0\2\0" + noise, "truncated"
        yield f"{kilobytes} KB of noise as webp", b"RIFF\x10\0\0\0WEBPVP8 " + noise, "corrupt"
        yield f"{kilobytes} KB of noise as avif", b"\0\0\0\x14ftypavif\0\0\0\0avif\xff" + noise, "truncated"
