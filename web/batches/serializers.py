"""Convert stored batches and images to the form that the API returns.

Listing batches must be fast, so these functions modify the documents instead of copying them. They do not convert
times, because orjson can encode times.
"""

from collections.abc import Iterable
from typing import Final

import orjson

from shared.storage import schema
from shared.storage.mongo import Document
from web.http.responses import JSON_OPTIONS

_HIDDEN: Final = schema.hidden_fields(schema.Batch)


def image(document: Document, base: str) -> Document:
    """Convert a stored image to its public form, in place, and return it.

    :param base: the beginning of the ``url`` field, without a slash at the end.
    """
    document["id"] = image_id = document.pop("_id")
    document["file_path"] = path = f"/uploads/{image_id}.jpg"
    document["url"] = base + path
    return document


def batch(document: Document, base: str) -> Document:
    """Convert a stored batch and its images to their public form, in place, and return the batch.

    :param base: the beginning of the ``url`` field of the images, without a slash at the end.
    """
    document["id"] = document.pop("_id")
    for name in _HIDDEN:
        document.pop(name, None)
    for stored in document["images"]:
        image(stored, base)
    return document


def batches(documents: Iterable[Document], base: str) -> list[orjson.Fragment]:
    """Return batches as JSON text.

    Each batch is encoded as soon as it is read, because the text of a batch needs only a tenth of the memory that its
    Python objects need.

    :param base: the beginning of the ``url`` field of the images, without a slash at the end.
    """
    return [orjson.Fragment(orjson.dumps(batch(document, base), option=JSON_OPTIONS)) for document in documents]
