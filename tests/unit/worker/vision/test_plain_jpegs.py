"""Which images are plain JPEGs."""

from tests.support.crafted_images import with_jpeg_segment, with_repeated_scan
from tests.unit.worker.vision.encoding import MAX, RED, encoded, noise
from worker.vision import imaging


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
