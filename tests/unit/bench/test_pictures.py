"""The uploads are real: decodable pictures of the stated size, in bodies that the front understands."""

import gzip
import io

from PIL import Image

from scripts.bench import pictures
from shared.settings import Limits
from web.parse import load, parse_json


def test_a_picture_is_a_jpeg_of_about_200_kb_and_every_seed_gives_another() -> None:
    one, other = pictures.jpeg(1), pictures.jpeg(2)
    assert one != other
    assert abs(len(one) - pictures.BYTES) <= 0.05 * pictures.BYTES
    with Image.open(io.BytesIO(one)) as image:
        image.load()
        assert (image.format, image.size) == ("JPEG", pictures.SIDES)


def test_the_front_takes_the_json_body_as_it_is() -> None:
    files = [pictures.jpeg(3), pictures.jpeg(4)]
    upload = pictures.upload(files)
    assert upload.inflated == len(upload.body)
    parsed = parse_json(load(upload.body, Limits()), Limits(), lenient=False)
    assert [bytes(image.data) for image in parsed.good] == files


def test_gzip_keeps_the_inflated_length() -> None:
    plain = pictures.upload([pictures.jpeg(5)])
    packed = pictures.gzipped(plain)
    assert gzip.decompress(packed.body) == plain.body
    assert packed.inflated == len(plain.body)


def test_a_form_carries_every_file_and_the_metadata() -> None:
    files = [pictures.jpeg(6), pictures.jpeg(7)]
    form = pictures.multipart(files)
    assert all(data in form.body for data in files)
    assert form.body.count(b'name="file"') == 2
    assert form.body.count(b'name="metadata"') == 1
