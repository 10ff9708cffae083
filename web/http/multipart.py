"""Parse multipart bodies in memory. This is safe because the size of the body has already been checked."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from shared.errors import BadRequest
from web.http.body_limits import too_many_images

_STEP_BYTES: Final = 64 * 1024
_MAX_OTHER_PARTS: Final = 16
"""The maximum number of parts that a form may have in addition to the images."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form. ``filename`` is the file name that the client sent, or None if it sent no file name."""

    name: str
    filename: str | None
    data: bytes


def parse_form(body: bytes, boundary: str, *, max_images: int) -> list[Part]:
    """Parse a ``multipart/form-data`` body.

    A part is handled in the same way with and without a file name, because the file name is optional (RFC 7578, 4.2).

    :raises BadRequest: when the form cannot be parsed (``malformed_form``).
    :raises TooLarge: when the form has too many parts.
    """
    headers: list[Field | File] = []
    contents: list[io.BytesIO] = []
    try:
        for event in _events(body, boundary.encode("ascii"), max_images + _MAX_OTHER_PARTS):
            if isinstance(event, Field | File):
                headers.append(event)
                contents.append(io.BytesIO())
            elif isinstance(event, Data):
                contents[-1].write(event.data)
    except RequestEntityTooLarge:
        raise too_many_images(max_images) from None
    except ValueError:
        raise BadRequest(
            "The form cannot be parsed; check the boundary in the Content-Type header.", code="malformed_form"
        ) from None
    # BytesIO.getvalue() returns its buffer without copying it, so the images are not copied here.
    return [
        Part(header.name or "", (header.filename or None) if isinstance(header, File) else None, content.getvalue())
        for header, content in zip(headers, contents, strict=True)
    ]


def _events(body: bytes, boundary: bytes, max_parts: int) -> Iterator[Event]:
    if not boundary:
        raise ValueError("no boundary")
    decoder = MultipartDecoder(boundary, max_parts=max_parts)
    for start in range(0, len(body), _STEP_BYTES):
        decoder.receive_data(body[start : start + _STEP_BYTES])
        while not isinstance(event := decoder.next_event(), NeedData):
            yield event
    decoder.receive_data(None)
    while not isinstance(event := decoder.next_event(), Epilogue):
        yield event
