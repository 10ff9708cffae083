"""The uploads are real: decodable pictures of the stated size, in bodies that the front understands."""

import gzip
import io

from PIL import Image

from scripts.bench import sample_uploads
from shared.settings import Limits
from web.http.json_body import parse_json
from web.uploads.parsing import parse_json_upload


def test_a_picture_is_a_jpeg_of_about_200_kb_and_every_seed_gives_another() -> None:
    one, other = sample_uploads.jpeg(1), sample_uploads.jpeg(2)
    assert one != other
    assert abs(len(one) - sample_uploads.BYTES) <= 0.05 * sample_uploads.BYTES
    with Image.open(io.BytesIO(one)) as image:
        image.load()
        assert (image.format, image.size) == ("JPEG", sample_uploads.SIDES)


def test_the_front_takes_the_json_body_as_it_is() -> None:
    files = [sample_uploads.jpeg(3), sample_uploads.jpeg(4)]
    upload = sample_uploads.upload(files)
    assert upload.inflated == len(upload.body)
    parsed = parse_json_upload(parse_json(upload.body, Limits().max_values), Limits(), lenient=False)
    assert [bytes(image.data) for image in parsed.images] == files


def test_gzip_keeps_the_inflated_length() -> None:
    plain = sample_uploads.upload([sample_uploads.jpeg(5)])
    packed = sample_uploads.gzipped(plain)
    assert gzip.decompress(packed.body) == plain.body
    assert packed.inflated == len(plain.body)


def test_a_form_carries_every_file_and_the_metadata() -> None:
    files = [sample_uploads.jpeg(6), sample_uploads.jpeg(7)]
    form = sample_uploads.multipart(files)
    assert all(data in form.body for data in files)
    assert form.body.count(b'name="file"') == 2
    assert form.body.count(b'name="metadata"') == 1
