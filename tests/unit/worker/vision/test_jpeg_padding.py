"""JPEGs as cameras write them: what loses no pixel decodes to the same pixels, and what loses pixels still fails."""

import random
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from tests.support.crafted_images import (
    cut_and_closed_jpeg,
    jpeg_segments,
    scan_data_offset,
    with_jpeg_segment,
    with_padded_restarts,
    with_scan_parameters,
    without_jpeg_segments,
)
from tests.unit.worker.vision.jpegs import END, MAX, NIGHT, PHOTO, encode, error_code, read
from worker.vision import imaging

COMMENT: Final = b"\xff\xfe\0\x0cframe 0001"


def before_end(what: bytes) -> Callable[[bytes], bytes]:
    return lambda jpeg: jpeg[:-2] + what + END


def before_segment(marker: int, what: bytes) -> Callable[[bytes], bytes]:
    def change(jpeg: bytes) -> bytes:
        at = next(begin for kind, begin, _ in jpeg_segments(jpeg) if kind == marker)
        return jpeg[:at] + what + jpeg[at:]

    return change


HARMLESS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "scan parameters 0 0 0": lambda jpeg: with_scan_parameters(jpeg, bytes(3)),
    "scan parameters 0 63 1": lambda jpeg: with_scan_parameters(jpeg, b"\0\x3f\1"),
    "scan parameters 255 255 255": lambda jpeg: with_scan_parameters(jpeg, b"\xff" * 3),
    "a revision of JFIF": lambda jpeg: jpeg.replace(b"JFIF\0\1", b"JFIF\0\2"),
    "revision 0 of JFIF": lambda jpeg: jpeg.replace(b"JFIF\0\1", b"JFIF\0\0"),
    "an unknown transform of Adobe": lambda jpeg: with_jpeg_segment(without_jpeg_segments(jpeg, 0xE0), 0xEE, b"Adobe\0\x64\0\0\0\0\7"),
    "a profile without its second part": lambda jpeg: with_jpeg_segment(jpeg, 0xE2, b"ICC_PROFILE\0\1\2" + bytes(200)),
    "a profile of part 0": lambda jpeg: with_jpeg_segment(jpeg, 0xE2, b"ICC_PROFILE\0\0\0" + bytes(200)),
    "a zero between segments": before_segment(0xC0, b"\0"),
    "text between segments": before_segment(0xDB, b"frame 0001"),
    "fill bytes between segments": before_segment(0xC4, b"\xff" * 9),
    "zeros in front of the scan": before_segment(0xC0, bytes(64)),
    "zeros and a comment behind the scan": before_end(bytes(608) + COMMENT),
    "a comment and text behind the scan": before_end(COMMENT + b"more text" + b"\0" * 7),
    "zeros and fill bytes behind the scan": before_end(bytes(20) + b"\xff" * 3),
    "a restart marker behind the scan": before_end(b"\xff\xd0" + bytes(20)),
    "two end markers with text between them": before_end(END + b"text"),
} | {f"{count} zeros behind the scan": before_end(bytes(count)) for count in (1, 2, 3, 5, 8, 64, 5000)}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_loses_no_pixel_decodes_to_the_same_pixels(name: str) -> None:
    for image, options in ((PHOTO, {}), (NIGHT, {}), (PHOTO.convert("L"), {}), (PHOTO, {"subsampling": 0}), (PHOTO, {"restart_marker_blocks": 7})):
        whole = encode(image, **options)
        odd = HARMLESS[name](whole)
        assert odd != whole
        assert np.array_equal(read(odd), read(whole))


@pytest.mark.parametrize("name", ["scan parameters 0 0 0", "a revision of JFIF", "a zero between segments", "5000 zeros behind the scan"])
def test_such_a_jpeg_is_plain(name: str) -> None:
    assert imaging.is_plain_jpeg(HARMLESS[name](encode()), max_pixels=MAX)


@pytest.mark.parametrize("name", ["a comment and text behind the scan", "64 zeros behind the scan"])
def test_padding_behind_a_progressive_or_cmyk_jpeg_is_ignored(name: str) -> None:
    for whole in (encode(progressive=True), encode(PHOTO.convert("CMYK")), encode(PHOTO.convert("CMYK"), progressive=True)):
        assert np.array_equal(read(HARMLESS[name](whole)), read(whole))


def test_padding_is_ignored_at_a_reduced_size() -> None:
    whole = encode(PHOTO.resize((1600, 960)))
    odd = HARMLESS["64 zeros behind the scan"](whole)
    reduced = imaging.decode(odd, max_pixels=MAX, min_side=700).rgb
    assert reduced.shape[1] < 1600
    assert np.array_equal(reduced, imaging.decode(whole, max_pixels=MAX, min_side=700).rgb)


PADDINGS: Final[dict[str, Callable[[int], bytes]]] = {
    "one zero": lambda _: b"\0",
    "two zeros": lambda _: bytes(2),
    "thirty zeros": lambda _: bytes(30),
    "zeros to an even offset": lambda at: bytes(-at % 2),
    "zeros to a multiple of four": lambda at: bytes(-at % 4),
    "zeros to a multiple of sixteen": lambda at: bytes(-at % 16),
    "fill bytes": lambda _: b"\xff" * 5,
    "a zero and fill bytes": lambda _: b"\0\xff\xff",
}


@pytest.mark.parametrize("name", PADDINGS)
@pytest.mark.parametrize("blocks", [1, 4, 13, 26, 50])
def test_padding_in_front_of_restart_markers_is_ignored(name: str, blocks: int) -> None:
    """The width of 200 pixels is 13 blocks of 16 pixels."""
    for image, options in ((PHOTO, {}), (NIGHT, {}), (NIGHT, {"subsampling": 0}), (NIGHT, {"subsampling": 1}), (PHOTO.convert("L"), {})):
        whole = encode(image, restart_marker_blocks=blocks, **options)
        odd = with_scan_parameters(with_padded_restarts(whole, PADDINGS[name]), bytes(3))
        assert np.array_equal(read(odd), read(whole))


def test_zeros_that_belong_to_the_pixels_are_kept() -> None:
    whole = encode(NIGHT, restart_marker_blocks=1)
    assert b"\0\xff\xd0" in whole
    assert np.array_equal(read(with_padded_restarts(whole, lambda _: bytes(2))), read(whole))


def test_lost_pixels_still_fail() -> None:
    whole, restarts, progressive = encode(), encode(restart_marker_blocks=4), encode(progressive=True)
    at = scan_data_offset(restarts)
    first, second = restarts.index(b"\xff\xd0", at), restarts.index(b"\xff\xd1", at)
    third = restarts.index(b"\xff\xd2", at)
    lost = {
        "cut": whole[: len(whole) // 2],
        "cut and closed": cut_and_closed_jpeg(whole),
        "cut, padded and closed": cut_and_closed_jpeg(whole)[:-2] + bytes(600) + END,
        "cut and closed with a comment": cut_and_closed_jpeg(whole)[:-2] + COMMENT + END,
        "without its last bytes": whole[:-12] + END,
        "progressive cut and closed": cut_and_closed_jpeg(progressive),
        "progressive cut, padded and closed": cut_and_closed_jpeg(progressive)[:-2] + bytes(600) + END,
        "without an interval": restarts[:first] + restarts[second:],
        "without an interval and its marker": restarts[:first] + restarts[first + 2 : second] + restarts[third:],
        "an interval of zeros": restarts[: first + 2] + bytes(second - first - 2) + restarts[second:],
        "an empty interval": restarts[: first + 2] + restarts[second:],
        "a shortened interval": restarts[: second - 6] + restarts[second:],
        "a shortened and padded interval": restarts[: second - 6] + bytes(6) + restarts[second:],
        "without its last interval": restarts[: restarts.rindex(b"\xff", 0, -2)] + END,
        "restart markers in another order": restarts[: first + 1] + b"\xd3" + restarts[first + 2 :],
        "scan data of zeros": whole[: scan_data_offset(whole)] + bytes(4000) + END,
        "text behind the pixels": before_end(b"more compressed pixels")(whole),
        "without its end marker and its last byte": whole[:-3],
        "progressive without its end marker": progressive[:-2],
    }
    for name, data in lost.items():
        assert (name, error_code(data) in {"truncated", "corrupt"}) == (name, True)


@pytest.mark.parametrize("padding", [b"", bytes(2)])
def test_a_padded_jpeg_that_is_cut_and_closed_anywhere_fails(padding: bytes) -> None:
    whole = with_padded_restarts(encode(NIGHT, restart_marker_blocks=4), lambda _: padding)
    begin = scan_data_offset(whole)
    last = whole.rindex(b"\xff", 0, -2)
    cuts = random.Random(1).sample(range(begin, last), 150)
    assert [cut for cut in cuts if error_code(whole[:cut] + padding + END) is None] == []


def test_a_progressive_jpeg_that_says_it_is_sequential_fails() -> None:
    progressive = encode(progressive=True)
    assert error_code(progressive.replace(b"\xff\xc2", b"\xff\xc0", 1)) == "corrupt"


@pytest.mark.parametrize("restarts", [4, 0])
@pytest.mark.parametrize("padding", [b"\0", b"\xaa", b"\xff\0"])
def test_damage_in_a_padded_jpeg_is_noticed_as_often_as_in_the_same_one_without_padding(padding: bytes, restarts: int) -> None:
    """The same bit is flipped in both. Where the pixels change and libjpeg-turbo reports it, both fail."""
    whole = encode(NIGHT, **({"restart_marker_blocks": restarts} if restarts else {}))
    padded = with_padded_restarts(whole, lambda _: padding * 2)[:-2] + padding * 16 + END
    clean, source = read(whole), random.Random(2)
    begin, noticed, missed = scan_data_offset(whole), 0, 0
    for _ in range(300):
        at, bit = source.randrange(begin, len(whole) - 2), 1 << source.randrange(8)
        markers = sum(whole[place] == 0xFF and 0xD0 <= whole[place + 1] <= 0xD7 for place in range(begin, at))
        damaged, damaged_too = bytearray(whole), bytearray(padded)
        damaged[at] ^= bit
        damaged_too[at + 2 * len(padding) * markers] ^= bit
        if error_code(bytes(damaged)) is not None:
            noticed += 1
            missed += error_code(bytes(damaged_too)) is None and not np.array_equal(read(bytes(damaged_too)), clean)
    assert noticed > 50
    assert missed <= noticed // 20


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_blocks": 4}, {"progressive": True}])
def test_damage_that_libjpeg_turbo_reports_is_still_noticed(options: dict[str, Any]) -> None:
    simplejpeg = pytest.importorskip("simplejpeg")
    source, missed, noticed = random.Random(3), [], 0
    for image in (PHOTO, NIGHT, PHOTO.convert("L")):
        whole = encode(image, **options)
        clean = read(whole)
        for _ in range(150):
            damaged = bytearray(whole)
            at = source.randrange(scan_data_offset(whole), len(whole) - 2)
            damaged[at] ^= 1 << source.randrange(8)
            try:
                simplejpeg.decode_jpeg(bytes(damaged), strict=True)
            except ValueError:
                noticed += 1
                if error_code(bytes(damaged)) is None and not np.array_equal(read(bytes(damaged)), clean):
                    missed.append(at)
    assert noticed > 60
    assert missed == []
