"""A multipart body becomes its parts, in memory: its bytes are counted already."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from shared.errors import BadRequest
from web.http.body_limits import too_many_images

_STEP: Final = 64 * 1024
_BESIDE_IMAGES: Final = 16
"""Parts that may come beside the images."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form. ``filename`` is what the client calls a file, None where it says nothing."""

    name: str
    filename: str | None
    data: bytes


def take_apart(body: bytes, boundary: str, *, max_images: int) -> list[Part]:
    """Take a ``multipart/form-data`` body apart; whether a part names a file makes no difference (RFC 7578, 4.2).

    :raises BadRequest: it cannot be taken apart. :raises TooLarge: it has too many parts.
    """
    heads: list[Field | File] = []
    contents: list[io.BytesIO] = []
    try:
        for event in _events(body, boundary.encode("ascii"), max_images + _BESIDE_IMAGES):
            if isinstance(event, Field | File):
                heads.append(event)
                contents.append(io.BytesIO())
            elif isinstance(event, Data):
                contents[-1].write(event.data)
    except RequestEntityTooLarge:
        raise too_many_images(max_images) from None
    except ValueError:
        raise BadRequest("The form cannot be taken apart: is its boundary right?", code="malformed_form") from None
    # A BytesIO hands its buffer over: the images are not copied once more.
    return [
        Part(head.name or "", (head.filename or None) if isinstance(head, File) else None, content.getvalue())
        for head, content in zip(heads, contents, strict=True)
    ]


def _events(body: bytes, boundary: bytes, max_parts: int) -> Iterator[Event]:
    if not boundary:
        raise ValueError("no boundary")
    decoder = MultipartDecoder(boundary, max_parts=max_parts)
    for at in range(0, len(body), _STEP):
        decoder.receive_data(body[at : at + _STEP])
        while not isinstance(event := decoder.next_event(), NeedData):
            yield event
    decoder.receive_data(None)
    while not isinstance(event := decoder.next_event(), Epilogue):
        yield event
