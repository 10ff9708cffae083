"""The sample uploads are real: decodable images of the stated size, in bodies that the web front accepts."""

import gzip
import io

from PIL import Image

from scripts.bench import sample_uploads
from tests.unit.web.json_uploads import parse


def test_an_image_is_a_jpeg_of_about_200_kb_and_every_seed_gives_a_different_one() -> None:
    first, second = sample_uploads.draw_jpeg(1), sample_uploads.draw_jpeg(2)
    assert first != second
    assert abs(len(first) - sample_uploads.JPEG_BYTES) <= 0.05 * sample_uploads.JPEG_BYTES
    with Image.open(io.BytesIO(first)) as image:
        image.load()
        assert (image.format, image.size) == ("JPEG", sample_uploads.SIZE)


def test_the_web_front_accepts_the_json_body() -> None:
    files = [sample_uploads.draw_jpeg(3), sample_uploads.draw_jpeg(4)]
    upload = sample_uploads.json_upload(files)
    assert upload.inflated == len(upload.body)
    parsed = parse(upload.body)
    assert [bytes(image.data) for image in parsed.images] == files


def test_gzip_keeps_the_inflated_length() -> None:
    plain = sample_uploads.json_upload([sample_uploads.draw_jpeg(5)])
    compressed = sample_uploads.gzip_upload(plain)
    assert gzip.decompress(compressed.body) == plain.body
    assert compressed.inflated == len(plain.body)


def test_a_multipart_body_contains_every_file_and_the_metadata() -> None:
    files = [sample_uploads.draw_jpeg(6), sample_uploads.draw_jpeg(7)]
    form = sample_uploads.multipart_upload(files)
    assert all(data in form.body for data in files)
    assert form.body.count(b'name="file"') == 2
    assert form.body.count(b'name="metadata"') == 1
