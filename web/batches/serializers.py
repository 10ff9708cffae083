"""Documents as the contract shows them. Hot: dictionaries are changed in place, orjson writes the times."""

from collections.abc import Iterable
from typing import Any, Final

import orjson
from flask import Response, request

from shared.storage.mongo import Document

_OPTIONS: Final = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
_HEADER_ONLY: Final = ("bytes", "stores", "generation", "listed", "open", "spooled", "unswept", "checked_at")


def image(document: Document, base: str) -> Document:
    """Show an image; ``base`` is the address that ``url`` begins with."""
    document["id"] = name = document.pop("_id")
    document["file_path"] = path = f"/uploads/{name}.jpg"
    document["url"] = base + path
    return document


def batch(document: Document, base: str) -> Document:
    """Show a batch with the images that it carries."""
    document["id"] = document.pop("_id")
    for name in _HEADER_ONLY:
        document.pop(name, None)
    for one in document["images"]:
        image(one, base)
    return document


def base_url(public_url: str) -> str:
    """Give the address that links begin with: the setting, else the request's own host."""
    return public_url.rstrip("/") if public_url else f"{request.scheme}://{request.host}"


def wants_page() -> bool:
    """Say whether this request is to be answered with a page and not with JSON. Who takes both alike gets a page at ``/``, else JSON."""
    page, json = "text/html", "application/json"
    first, second = (page, json) if request.path == "/" else (json, page)
    return request.accept_mimetypes.best_match([first, second], first) == page


def batches(found: Iterable[Document], base: str) -> list[orjson.Fragment]:
    """Show batches, each written as JSON as soon as it was read: a page's text is a tenth of its objects."""
    return [orjson.Fragment(orjson.dumps(batch(one, base), option=_OPTIONS)) for one in found]


def as_json(body: Any, status: int = 200) -> Response:
    """Answer with JSON."""
    return Response(orjson.dumps(body, option=_OPTIONS), status, mimetype="application/json")
