"""Encode the images of a page one after the other, up to a limit in bytes.

The text of an image needs only a tenth of the memory that its Python objects need, and an image with thousands of
annotations or detections has hundreds of kilobytes.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson

from shared.catalog.image_orders import Position
from shared.storage.mongo import Document
from web.http.json_options import JSON_OPTIONS
from web.image_serializer import ImageSerializer

MAX_IMAGE_BYTES: Final = 14 * 1024 * 1024
"""Maximum size of all images of a page, in bytes of JSON, unless the first image alone exceeds it."""


def encode_images(
    runs: Iterable[list[tuple[Position, Document]]], serializer: ImageSerializer
) -> tuple[list[bytes], Position | None]:
    """Encode images until they have ``MAX_IMAGE_BYTES``, and leave out all further images.

    :param runs: the images, as ``image_lists.read_images`` returns them. The names of the tags of a run are read at once.
    :returns: the texts, and the position of the last of these images if further images were left out, else None.
    """
    texts: list[bytes] = []
    left, last = MAX_IMAGE_BYTES, None
    for run in runs:
        serializer.load_tags(stored for _, stored in run)
        for position, stored in run:
            text = orjson.dumps(serializer.image(stored), option=JSON_OPTIONS)
            left -= len(text)
            if left < 0 and texts:
                return texts, last
            texts.append(text)
            last = position
    return texts, None


def encode_page(members: dict[str, Any], texts: list[bytes], *, is_cut: bool) -> Iterator[bytes]:
    """Yield the JSON text of a page in parts.

    :param members: the members of the page except ``images``.
    :param is_cut: whether images of this page were left out, which the member ``images_more`` says.
    """
    yield orjson.dumps(members, option=JSON_OPTIONS)[:-1] + b',"images":['
    for number, text in enumerate(texts):
        if number:
            yield b","
        yield text
    yield b'],"images_more":true}' if is_cut else b"]}"
