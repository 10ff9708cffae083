"""Stored batches and images as the API shows them.

This code is on the hot path of lists: it changes the documents in place, and orjson writes the times.
"""

from collections.abc import Iterable
from typing import Final

import orjson

from shared.storage import schema
from shared.storage.mongo import Document
from web.http.responses import JSON_OPTIONS

_HIDDEN: Final = schema.hidden_fields(schema.Batch)


def image(document: Document, base: str) -> Document:
    """Change a stored image into its public form.

    :param base: what ``url`` begins with.
    """
    document["id"] = image_id = document.pop("_id")
    document["file_path"] = path = f"/uploads/{image_id}.jpg"
    document["url"] = base + path
    return document


def batch(document: Document, base: str) -> Document:
    """Change a stored batch and the images in it into their public form."""
    document["id"] = document.pop("_id")
    for name in _HIDDEN:
        document.pop(name, None)
    for stored in document["images"]:
        image(stored, base)
    return document


def batches(documents: Iterable[Document], base: str) -> list[orjson.Fragment]:
    """Return batches as JSON text. Each is encoded as soon as it is read: the text takes a tenth of the memory of the objects."""
    return [orjson.Fragment(orjson.dumps(batch(document, base), option=JSON_OPTIONS)) for document in documents]
