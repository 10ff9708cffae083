"""Convert stored batches and images to the form that the API returns, and encode them.

Listing batches must be fast, so these functions modify the documents instead of copying them. They do not convert
times, because orjson can encode times. Each image is encoded as soon as it is read, because its text needs only a tenth
of the memory that its Python objects need.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import orjson

from shared.storage.mongo import Document
from web.http.json_options import JSON_OPTIONS
from web.image_serializer import ImageSerializer

MAX_IMAGE_BYTES: Final = 14 * 1024 * 1024
"""Maximum size of all images in one list, in bytes of JSON. A list leaves out the images that exceed it."""


def batch(document: Document) -> Document:
    """Convert a stored batch without images to its public form, in place, and return it."""
    document["id"] = document.pop("_id")
    return document


def encode_page(members: dict[str, Any], batches: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the JSON text of a page in parts.

    :param members: the members of the page except ``batches``.
    :param batches: the text of the batches, in parts.
    """
    yield _encode(members)[:-1] + b',"batches":['
    yield from batches
    yield b"]}"


def encode_batch(document: Document, images: Iterable[Document], serializer: ImageSerializer) -> Iterator[bytes]:
    """Yield the JSON text of a batch with all its images in parts."""
    yield _open_batch(document)
    separator = b""
    for stored in images:
        yield separator + _encode(serializer.image(stored))
        separator = b","
    yield b"]}"


def encode_batches(documents: Iterable[Document], images: Iterable[tuple[str, bytes | None]]) -> Iterator[bytes]:
    """Yield the JSON text of several batches in parts, separated by commas.

    :param images: pairs of batch id and text, in the order of ``documents``. The pair of a batch with further images has
        None instead of a text.
    """
    groups = groupby(images, key=itemgetter(0))
    group = next(groups, None)
    for number, document in enumerate(documents):
        batch_id = document["_id"]
        yield (b"," if number else b"") + _open_batch(document)
        separator, end = b"", b"]}"
        if group is not None and group[0] == batch_id:
            for _, text in group[1]:
                if text is None:
                    end = b'],"images_more":true}'
                else:
                    yield separator + text
                    separator = b","
            group = next(groups, None)
        yield end


def encode_images(
    images: Iterable[tuple[str, Document | None]],
    read_rest: Callable[[str], Iterable[tuple[str, None]]],
    serializer: ImageSerializer,
) -> Iterator[tuple[str, bytes | None]]:
    """Encode the images of several batches until they have ``MAX_IMAGE_BYTES``, and leave out all further images.

    :param images: pairs of batch id and image document, as ``shared.ledger.batch_images.read_first`` returns them.
    :param read_rest: function that is called with the id of the first batch whose images exceed the limit. It returns a
        pair of batch id and None for each batch after this one that has images.
    :returns: the same pairs with texts instead of documents.
    """
    left = MAX_IMAGE_BYTES
    for batch_id, stored in images:
        text = None if stored is None else _encode(serializer.image(stored))
        left -= len(text or b"")
        if left < 0:
            yield batch_id, None
            yield from read_rest(batch_id)
            return
        yield batch_id, text


def _open_batch(document: Document) -> bytes:
    return _encode(batch(document))[:-1] + b',"images":['


def _encode(document: Document) -> bytes:
    return orjson.dumps(document, option=JSON_OPTIONS)
