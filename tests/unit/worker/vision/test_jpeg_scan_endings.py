"""What follows the pixels of a scan: padding of any one byte, in every scan, and a missing end marker."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pytest

from tests.support.crafted_images import (
    cut_and_closed_jpeg,
    draw_image,
    encode_split_jpeg,
    scan_data_offset,
    with_padded_restarts,
    with_padded_scans,
)
from tests.unit.worker.vision.jpegs import END, MAX, NIGHT, PHOTO, encode, error_code, read
from worker.vision import imaging, jpeg_decoder

UNIFORM: Final = [b"\xaa" * 16, b" " * 16, b"\xff\0" * 16, b"U" * 4, b"\xaa" * 5000, b"\1" * 9]


def whole_jpegs() -> Iterator[bytes]:
    """Yield JPEGs of one scan: in colour, in grey, with all ways to share chroma samples, and with restart markers."""
    for image in (PHOTO, NIGHT, PHOTO.convert("L"), PHOTO.convert("CMYK")):
        for options in ({}, {"subsampling": 0}, {"optimize": True}, {"restart_marker_blocks": 7}):
            yield encode(image, **options)


@pytest.mark.parametrize("padding", UNIFORM)
def test_a_repeated_byte_behind_the_pixels_is_padding(padding: bytes) -> None:
    for whole in (*whole_jpegs(), encode(progressive=True), encode(NIGHT, progressive=True)):
        assert np.array_equal(read(whole[:-2] + padding + END), read(whole))


@pytest.mark.parametrize("text", [b"more pixels more pixels", b"aaaaaaaabbb", b"\xaa\xab" * 8, b"0123456789" + b"\xaa" * 16, b"\xff\0" * 3 + b"\x7f" * 9])
def test_other_bytes_behind_the_pixels_may_be_pixels(text: bytes) -> None:
    for whole in whole_jpegs():
        assert error_code(whole[:-2] + text + END) == "corrupt"


@pytest.mark.parametrize("padding", [b"\xaa", b"  ", b"\x7f" * 3, b"\xff\0", b"\1"])
@pytest.mark.parametrize("blocks", [1, 4, 13])
def test_the_same_byte_in_front_of_restart_markers_is_padding(padding: bytes, blocks: int) -> None:
    for image in (PHOTO, NIGHT, PHOTO.convert("L")):
        whole = encode(image, restart_marker_blocks=blocks)
        assert np.array_equal(read(with_padded_restarts(whole, lambda _: padding)), read(whole))


def test_a_byte_in_front_of_only_some_restart_markers_is_not_padding() -> None:
    whole = encode(restart_marker_blocks=4)
    for padding in (lambda at: b"\xaa" * (at % 2 * 9), lambda at: bytes([0x20 + at % 64]) * 9):
        assert error_code(with_padded_restarts(whole, padding)) == "corrupt"
    few = encode(restart_marker_blocks=26)
    assert few.count(b"\xff\xd0") + few.count(b"\xff\xd1") + few.count(b"\xff\xd2") == 3
    assert error_code(with_padded_restarts(few, lambda _: b"\xaa" * 9)) == "corrupt"


@pytest.mark.parametrize("zeros", [1, 2, 3, 9, 500])
def test_zeros_after_each_scan_are_padding(zeros: int) -> None:
    images = [PHOTO, NIGHT, PHOTO.convert("L"), PHOTO.convert("CMYK"), *(draw_image(seed, (200, 120)) for seed in range(2, 12))]
    for whole in [*(encode(image, progressive=True) for image in images), *map(encode_split_jpeg, images[:3])]:
        odd = with_padded_scans(whole, bytes(zeros))
        assert len(odd) > len(whole) + zeros or b"\xff\xc2" not in whole
        assert np.array_equal(read(odd), read(whole))


def test_a_padded_scan_that_lacks_pixels_still_fails() -> None:
    for whole in (encode(progressive=True), encode_split_jpeg(PHOTO)):
        padded = with_padded_scans(whole, bytes(2))
        scans = [at for at in range(len(padded) - 1) if padded[at : at + 2] == b"\xff\xda"]
        for scan, following in pairwise([*scans, len(padded) - 2]):
            begin = scan + 2 + int.from_bytes(padded[scan + 2 : scan + 4], "big")
            tables = padded.find(b"\xff\xc4", begin, following)
            end = following if tables < 0 else tables
            for left in {0, (end - begin) // 2, end - begin - 6}:
                cut = padded[: begin + max(0, left)] + bytes(2) + padded[end:]
                assert error_code(cut) in {"truncated", "corrupt"}


def test_few_attempts_are_made_to_decode_a_file_of_many_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is decoded as often as its 160 scans allow, and once before and after the search."""
    attempts: list[int] = []
    decode = jpeg_decoder.simplejpeg().decode_jpeg

    class Counting:
        @staticmethod
        def decode_jpeg(data: bytes, **options: Any) -> Any:
            attempts.append(data.count(b"\xff\xda"))
            return decode(data, **options)

    monkeypatch.setattr(jpeg_decoder, "simplejpeg", lambda: Counting)
    whole = encode(progressive=True)
    at = whole.rindex(b"\xff\xda")
    for data in (whole[:-2] + (bytes(2) + whole[at:-2]) * 90 + b"\0" + END, with_padded_scans(whole, bytes(2))[:-40] + bytes(9) + END):
        attempts.clear()
        assert error_code(data) in {"corrupt", "truncated"}
        assert sum(attempts) <= 160 + 2 * data.count(b"\xff\xda")
    attempts.clear()
    assert error_code(cut_and_closed_jpeg(whole)) == "truncated"
    assert len(attempts) <= 2


@pytest.mark.parametrize("tail", [b"", b"\xff", b"\xff\xff", bytes(3), bytes(5000), b"\xaa" * 16, b"\xff\xfe\0\6text"])
def test_a_missing_end_marker_loses_no_pixel(tail: bytes) -> None:
    for whole in whole_jpegs():
        needs_zeros = whole[:-2].endswith(b"\0") and not whole[:-2].endswith(b"\xff\0")
        if needs_zeros and tail.startswith(b"\0"):
            continue
        assert np.array_equal(read(whole[:-2] + tail), read(whole))


@pytest.mark.slow
def test_every_missing_byte_of_the_pixels_of_an_unfinished_jpeg_is_noticed() -> None:
    """The last byte of the pixels holds at least one bit of them."""
    for whole in whole_jpegs():
        begin = max(scan_data_offset(whole), len(whole) - 100)
        for tail in (b"", bytes(2), bytes(600), b"\xff", b"\xaa" * 9):
            assert [end for end in range(begin, len(whole) - 2) if error_code(whole[:end] + tail) is None] == []


def test_an_unfinished_jpeg_of_which_scans_may_be_missing_fails() -> None:
    for whole in (encode(progressive=True), encode_split_jpeg(PHOTO), cut_and_closed_jpeg(encode())):
        assert error_code(whole[:-2]) == "truncated"
    progressive = encode(progressive=True)
    arithmetic = encode().replace(b"\xff\xc0", b"\xff\xc9", 1)
    for data in (progressive[:-2].replace(b"\xff\xc2", b"\xff\xc0", 1), arithmetic[:-2]):
        assert error_code(data) in {"truncated", "corrupt"}


def test_an_unfinished_jpeg_fails_where_missing_pixels_would_not_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow, which decodes on a machine without simplejpeg, fills missing pixels with grey."""
    monkeypatch.setattr(jpeg_decoder, "simplejpeg", lambda: None)
    assert error_code(encode()[:-2]) == "truncated"


def test_an_unfinished_jpeg_is_not_plain() -> None:
    assert not imaging.is_plain_jpeg(encode()[:-2], max_pixels=MAX)
