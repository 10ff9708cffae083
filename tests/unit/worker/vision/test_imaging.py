"""Decoding: every format upright, and an error code for every kind of damage."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import AvifImagePlugin, Image, ImageCms, ImageOps, _avif

from tests.support.crafted_images import (
    build_bmp,
    build_png,
    build_tiff,
    encode_ycck_jpeg,
    interlaced_png_rows,
    png_chunk,
    with_jpeg_segment,
    with_repeated_scan,
)
from worker.vision import formats, imaging
from worker.vision.errors import VisionError

MAX = 50_000_000
several = settings(deadline=None, max_examples=200, database=None, derandomize=True)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8))


RED = Image.new("RGB", (40, 30), (200, 30, 30))


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (RED, "JPEG"), (RED.convert("CMYK"), "JPEG"), (RED, "PNG"), (RED.convert("RGBA"), "PNG"), (RED, "WEBP"),
        (RED, "BMP"), (RED, "TIFF"), (RED, "AVIF"),
    ],
)  # fmt: skip
def test_every_format_and_mode_decodes_to_the_same_red(image: Image.Image, kind: str) -> None:
    decoded = imaging.decode(encoded(image, kind), max_pixels=MAX)
    assert (decoded.format, decoded.width, decoded.height) == (kind.lower(), 40, 30)
    assert decoded.rgb.flags.c_contiguous
    assert np.abs(decoded.rgb[15, 20].astype(int) - (200, 30, 30)).max() <= 4


def test_16_bit_palette_grey_and_transparent_images_become_rgb() -> None:
    sixteen_bit = imaging.decode(encoded(Image.fromarray(np.full((30, 40), 40_000, np.uint16)), "PNG"), max_pixels=MAX)
    assert tuple(sixteen_bit.rgb[0, 0]) == (155, 155, 155)
    transparent = imaging.decode(encoded(Image.new("RGBA", (40, 30), (0, 0, 0, 0)), "PNG"), max_pixels=MAX)
    assert tuple(transparent.rgb[0, 0]) == (255, 255, 255)
    for mode in ("P", "L", "1", "LA"):
        assert imaging.decode(encoded(RED.convert(mode), "PNG"), max_pixels=MAX).rgb.shape == (30, 40, 3)


@pytest.mark.parametrize(
    ("bits", "form", "zero", "values", "grey"),
    [
        (12, 1, "black", b"\xff\xff\xff\x80\x00\x00", [255, 255, 127, 0]),
        (16, 1, "black", struct.pack("<4H", 65535, 32768, 256, 0), [255, 127, 0, 0]),
        (16, 1, "white", struct.pack("<4H", 65535, 32768, 256, 0), [0, 128, 255, 255]),
        (16, 2, "black", struct.pack("<4h", 255, 128, 1, 0), [255, 128, 1, 0]),
        (32, 2, "black", struct.pack("<4i", 255, 128, 1, 0), [255, 128, 1, 0]),
        (32, 1, "black", struct.pack("<4I", 2**32 - 1, 2**31, 2**24, 0), [255, 127, 0, 0]),
        (32, 3, "black", struct.pack("<4f", 2, 1, 0.5, 0), [255, 127, 63, 0]),
        (32, 3, "white", struct.pack("<4f", 2, 1, 0.5, 0), [0, 128, 192, 255]),
    ],
)
def test_grey_of_more_than_8_bits_keeps_its_brightness(bits: int, form: int, zero: str, values: bytes, grey: list[int]) -> None:
    fields = {256: 4, 257: 1, 258: bits, 259: 1, 262: 0 if zero == "white" else 1, 273: 8, 277: 1, 278: 1, 279: len(values), 339: form}
    assert imaging.decode(build_tiff("<", fields, pixels=values), max_pixels=MAX).rgb[0, :, 0].tolist() == grey


def test_an_animation_gives_its_first_frame_and_the_number_of_frames() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    decoded = imaging.decode(data, max_pixels=MAX)
    assert decoded.frames == 3
    assert tuple(decoded.rgb[5, 5]) == (255, 0, 0)


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_is_applied_once(turn: int) -> None:
    image = noise()
    exif = Image.Exif()
    exif[0x112] = turn
    data = encoded(image, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert (imaging.decode(data, max_pixels=MAX).rgb == expected).all()


@pytest.mark.parametrize(
    ("image", "kind", "mode"),
    [
        (RED, "JPEG", "RGB"), (RED.convert("L"), "JPEG", "L"), (RED.convert("CMYK"), "JPEG", "CMYK"), (RED.convert("P"), "PNG", "P"),
        (RED.convert("1"), "PNG", "1"), (RED.convert("RGBA"), "PNG", "RGBA"), (RED.convert("LA"), "PNG", "LA"), (RED, "GIF", "P"),
        (Image.new("RGBA", (40, 30), (0, 0, 0, 9)), "WEBP", "RGBA"), (RED.convert("CMYK"), "TIFF", "CMYK"),
        (Image.fromarray(np.full((30, 40), 40_000, np.uint16)), "PNG", "I;16"),
    ],
)  # fmt: skip
def test_the_mode_is_that_of_the_file(image: Image.Image, kind: str, mode: str) -> None:
    decoded = imaging.decode(encoded(image, kind), max_pixels=MAX)
    assert decoded.mode == mode
    assert decoded.rgb.shape == (30, 40, 3)


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_colour_profile_gives_its_description(kind: str) -> None:
    decoded = imaging.decode(encoded(RED, kind, icc_profile=srgb()), max_pixels=MAX)
    assert decoded.icc == "sRGB built-in"
    assert imaging.decode(encoded(RED, kind), max_pixels=MAX).icc is None


def profile_with_description(text: bytes) -> bytes:
    """Return a profile with that description in UTF-16, in a tag at the end (ICC.1:2022, 10.15)."""
    profile = bytearray(srgb())
    entry = next(offset for offset in range(132, len(profile), 12) if profile[offset : offset + 4] == b"desc")
    tag = b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(text), 28) + text
    profile[entry + 4 : entry + 12] = struct.pack(">II", len(profile), len(tag))
    profile += tag + bytes(-len(tag) % 4)
    profile[:4] = struct.pack(">I", len(profile))
    return bytes(profile)


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


@settings(several, max_examples=60)
@given(mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]), width=st.integers(1, 40), height=st.integers(1, 12))
def test_a_png_is_complete_with_all_bytes_of_its_rows_and_truncated_without_the_last(mode: str, width: int, height: int) -> None:
    grey = noise((width, height)).convert("L")
    whole = encoded(Image.fromarray(np.asarray(grey).astype(np.uint16)) if mode == "I;16" else grey.convert(mode), "PNG")
    begin = whole.index(b"IDAT") + 4
    rows = zlib.decompress(whole[begin : whole.index(b"IEND")])
    formats.png.check_pixels(whole)
    short = png_chunk(b"IDAT", zlib.compress(rows[:-1]))
    with pytest.raises(VisionError, match="truncated"):
        formats.png.check_pixels(whole[: begin - 8] + short + png_chunk(b"IEND", b""))


@settings(several, max_examples=60)
@given(width=st.integers(1, 20), height=st.integers(1, 20))
def test_an_interlaced_png_is_complete_with_all_bytes_of_its_rows_and_truncated_without_the_last(width: int, height: int) -> None:
    rows = interlaced_png_rows(noise((width, height)))
    formats.png.check_pixels(build_png((width, height), zlib.compress(rows), interlaced=1))
    with pytest.raises(VisionError, match="truncated"):
        formats.png.check_pixels(build_png((width, height), zlib.compress(rows[:-1]), interlaced=1))


@pytest.mark.parametrize("make", [lambda image: encoded(image.convert("CMYK"), "JPEG"), encode_ycck_jpeg])
def test_cmyk_is_converted_to_the_same_colours_as_by_pillow(make: Callable[[Image.Image], bytes]) -> None:
    data = make(noise())
    assert np.array_equal(imaging.decode(data, max_pixels=MAX).rgb, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("turn", [1, 6])
def test_a_large_jpeg_is_decoded_at_a_reduced_size_if_that_suffices_and_its_size_is_still_reported(turn: int) -> None:
    exif = Image.Exif()
    exif[0x112] = turn
    image = noise((60, 45)).resize((2400, 1800))
    data = encoded(image, "JPEG", exif=exif)
    whole = imaging.decode(data, max_pixels=MAX)
    small = imaging.decode(data, max_pixels=MAX, min_side=700)
    assert (small.width, small.height) == (whole.width, whole.height) == ((2400, 1800) if turn == 1 else (1800, 2400))
    assert 700 <= max(small.rgb.shape) < 1400
    assert small.rgb.shape[0] * whole.width == small.rgb.shape[1] * whole.height
    size = small.rgb.shape[1::-1]
    assert np.abs(small.rgb.astype(int) - cv2.resize(whole.rgb, size, interpolation=cv2.INTER_AREA)).mean() < 3
    slightly_larger = imaging.decode(encoded(image.resize((1300, 975)), "JPEG"), max_pixels=MAX, min_side=700)
    assert slightly_larger.rgb.shape == (975, 1300, 3)
    with pytest.raises(VisionError, match="truncated"):
        imaging.decode(data[: len(data) // 2], max_pixels=MAX, min_side=700)


def test_only_allowed_exif_fields_are_kept_and_of_a_location_only_its_presence() -> None:
    exif = Image.Exif()
    exif[0x10F], exif[0x13B] = "Maker\0", "the photographer"
    exif.get_ifd(0x8825)[1] = "N"
    found = imaging.decode(encoded(noise(), "JPEG", exif=exif), max_pixels=MAX).exif
    assert found == {"Make": "Maker", "has_gps": True}


def test_every_kind_of_damage_has_an_error_code() -> None:
    whole = encoded(noise((320, 240)), "JPEG")
    cases = {
        b"": "empty",
        b"hello": "unsupported_format",
        whole[: len(whole) // 2]: "truncated",
        whole[:-3]: "truncated",
        encoded(noise(), "PNG")[:-200]: "truncated",
        b"\x89PNG\r\n\x1a\n1234": "truncated",
        b"\x89PNG\r\n\x1a\n\0\0\0\0IEND\xaeB`\x82": "corrupt",
    }
    for data, code in cases.items():
        with pytest.raises(VisionError) as caught:
            imaging.decode(data, max_pixels=MAX)
        assert caught.value.code == code


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
def test_bytes_after_the_end_of_an_image_are_ignored(options: dict[str, Any]) -> None:
    whole = encoded(noise((320, 240)), "JPEG", **options)
    for tail in (bytes(6000), b"\xff\xda" * 3000, b"\xff\xe0\x00" * 3000):
        assert np.array_equal(imaging.decode(whole + tail, max_pixels=MAX).rgb, imaging.decode(whole, max_pixels=MAX).rgb)
        with pytest.raises(VisionError) as caught:
            imaging.decode(whole[: len(whole) // 2] + tail, max_pixels=MAX)
        assert caught.value.code in {"truncated", "corrupt"}


def test_the_pixel_limit_is_applied_before_anything_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(VisionError) as caught:
        imaging.decode(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")), max_pixels=MAX)
    assert caught.value.code == "too_many_pixels"


def test_a_thumbnail_is_never_enlarged() -> None:
    small, large = np.zeros((30, 40, 3), np.uint8), np.zeros((600, 800, 3), np.uint8)
    assert imaging.thumbnail(small) is small
    assert imaging.thumbnail(large).shape == (240, 320, 3)


def test_only_ordinary_jpegs_are_plain() -> None:
    assert imaging.is_plain_jpeg(encoded(noise(), "JPEG"), max_pixels=MAX)
    assert not imaging.is_plain_jpeg(encoded(noise(), "PNG"), max_pixels=MAX)
    assert not imaging.is_plain_jpeg(encoded(RED.convert("CMYK"), "JPEG"), max_pixels=MAX)
    assert not imaging.is_plain_jpeg(encoded(noise(), "JPEG"), max_pixels=100)


def test_a_jpeg_with_more_segments_or_scans_than_a_camera_writes_is_not_plain() -> None:
    whole, progressive = encoded(noise(), "JPEG"), encoded(noise(), "JPEG", progressive=True)
    exif = b"Exif\0\0" + bytes(2000)
    assert imaging.is_plain_jpeg(with_jpeg_segment(whole, 0xE1, exif, 30), max_pixels=MAX)
    assert imaging.is_plain_jpeg(progressive, max_pixels=MAX)
    assert not imaging.is_plain_jpeg(with_jpeg_segment(whole, 0xE1, exif, 255), max_pixels=MAX)
    assert not imaging.is_plain_jpeg(with_repeated_scan(progressive, 40), max_pixels=MAX)
    assert not imaging.is_plain_jpeg(whole[:-2], max_pixels=MAX)


def test_bytes_after_the_end_of_a_jpeg_do_not_affect_whether_it_is_plain() -> None:
    assert imaging.is_plain_jpeg(encoded(noise(), "JPEG") + b"\xff\xda\0\2" * 1000, max_pixels=MAX)


def test_a_jpeg_with_more_segments_than_a_colour_profile_and_a_camera_need_is_corrupt() -> None:
    whole = encoded(noise(), "JPEG")
    profile = srgb() + bytes(254 * 65_519)
    assert imaging.decode(encoded(noise(), "JPEG", icc_profile=profile), max_pixels=MAX).profile == profile
    with pytest.raises(VisionError, match="corrupt"):
        imaging.decode(with_jpeg_segment(whole, 0xE1, b"Exif\0\0" + bytes(2000), 5000), max_pixels=MAX)


def test_bytes_between_the_segments_of_a_jpeg_are_removed() -> None:
    whole = encoded(noise(), "JPEG")
    assert formats.normalize("jpeg", whole) == whole
    assert formats.normalize("jpeg", whole[:2] + b"\xff" * 1000 + whole[2:]) == whole
    hidden = with_jpeg_segment(whole, 0xF0, with_jpeg_segment(b"\xff\xd8", 0xE1, b"Exif\0\0", 1000))
    assert formats.normalize("jpeg", hidden) == whole


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


def avif_box(name: bytes, *parts: bytes) -> bytes:
    """Return a box of an AVIF file."""
    return struct.pack(">I4s", 8 + sum(map(len, parts)), name) + b"".join(parts)


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


def test_the_avif_decoder_uses_no_more_threads_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, thread_counts = _avif.AvifDecoder, []

    def spy(data: bytes, codec: str, threads: int) -> Any:
        thread_counts.append(threads)
        return decoder(data, codec, threads)

    monkeypatch.setattr(_avif, "AvifDecoder", spy)
    monkeypatch.setattr(AvifImagePlugin, "DEFAULT_MAX_THREADS", 0)  # restored after the test
    previous = cv2.getNumThreads()
    imaging.limit_threads(3)
    try:
        imaging.decode(encoded(RED, "AVIF"), max_pixels=MAX)
    finally:
        cv2.setNumThreads(previous)
    assert thread_counts == [3]
