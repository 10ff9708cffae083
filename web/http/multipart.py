"""Parse multipart bodies in memory. This is safe because the size of the body has already been checked.

The parser searches the body for the boundary, and copies each part once. A parser for streams reads every byte of an
image several times, which takes about four times as long (measured).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shared.errors import BadRequest
from web.http.body_limits import too_many_images
from web.http.content_disposition import parse_parameters

_MAX_OTHER_PARTS: Final = 16
"""The maximum number of parts that a form may have in addition to the images."""
_MAX_HEADER_BYTES: Final = 4 * 1024
"""The maximum size of the headers of one part. It suffices for a file name of 255 characters in two encodings."""
_MAX_FALSE_BOUNDARIES: Final = 10_000
_DASHES: Final = b"--"
_END_OF_LINE: Final = re.compile(rb"[ \t\v\f]*(?:\r\n|\n|\r)")
_BLANK_LINE: Final = re.compile(rb"\r\n\r\n|\n\r?\n|\r\r")
_CONTINUATION: Final = re.compile(rb"(?:\r\n|\n|\r)[ \t]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NOT_ENCODED: Final = {"", "7bit", "8bit", "binary"}


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form. ``filename`` is the file name that the client sent, or None if it sent no file name."""

    name: str
    filename: str | None
    data: bytes


def parse_form(body: bytes, boundary: str, *, max_images: int) -> list[Part]:
    """Parse a ``multipart/form-data`` body (RFC 7578).

    A part is handled in the same way with and without a file name, because the file name is optional (RFC 7578, 4.2).
    Lines can end with CR LF, LF or CR. What precedes the first boundary and follows the last one is ignored.

    :param boundary: the boundary that the Content-Type header names; empty if it names none.
    :raises BadRequest: when the form cannot be parsed (``malformed_form``).
    :raises TooLarge: when the form has too many parts.
    """
    if not boundary:
        raise _malformed("The Content-Type header of the form has no boundary; let the HTTP library set this header.")
    parts: list[Part] = []
    for start, end in _find_parts(body, _DASHES + boundary.encode("latin-1", "replace")):
        if len(parts) == max_images + _MAX_OTHER_PARTS:
            raise too_many_images(max_images)
        parts.append(_read_part(body, start, end))
    return parts


def find_part(head: bytes, boundary: str, name: str) -> bytes | None:
    """Return the content of the first part with this name, or None if ``head`` does not contain it up to its end.

    :param head: the beginning of a form.
    :param boundary: the boundary that the Content-Type header names; empty if it names none.
    """
    if not boundary:
        return None
    try:
        for start, end in _find_parts(head, _DASHES + boundary.encode("latin-1", "replace")):
            part = _read_part(head, start, end)
            if part.name == name:
                return part.data
    except BadRequest:
        return None  # the rest of the form is missing, or the form is malformed
    return None


def _find_parts(body: bytes, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """Yield, for each part, the position of its headers, and the position of the line break that ends its content."""
    start = None
    false_boundaries = 0
    position = body.find(delimiter)
    while position >= 0:
        after = position + len(delimiter)
        is_last = body.startswith(_DASHES, after)
        line_end = None if is_last else _END_OF_LINE.match(body, after)
        # The first boundary need not follow a line break, because many clients omit it.
        if (is_last or line_end) and (start is None or body[position - 1] in b"\r\n"):
            if start is not None:
                yield start, position - (2 if body[position - 2 : position] == b"\r\n" else 1)
            if line_end is None:
                return
            start = line_end.end()
        else:
            false_boundaries += 1
            if false_boundaries > _MAX_FALSE_BOUNDARIES:
                raise _malformed("The boundary of the form occurs inside its parts; use a random boundary.")
        position = body.find(delimiter, after)
    if start is None:
        raise _malformed(
            "The form does not contain the boundary that the Content-Type header names; check the boundary."
        )
    raise _malformed("The form has no closing boundary; send the form again, up to its end.")


def _read_part(body: bytes, start: int, end: int) -> Part:
    # The line break that ends the content can be the blank line after the headers, so the search includes it.
    blank_line = _BLANK_LINE.search(body, start, min(end + 2, start + _MAX_HEADER_BYTES))
    if blank_line is None:
        more = f", or more than {_MAX_HEADER_BYTES} bytes of headers" if end + 2 - start > _MAX_HEADER_BYTES else ""
        raise _malformed(
            f"A part of the form has no headers{more}; begin each part with Content-Disposition and a short file name."
        )
    headers = _read_headers(body[start : blank_line.start()])
    if headers.get("content-transfer-encoding", "").lower() not in _NOT_ENCODED:
        raise _malformed("A part of the form has a Content-Transfer-Encoding; send the bytes of each part unencoded.")
    if "content-disposition" not in headers:
        raise _malformed("A part of the form has no Content-Disposition header; add it.")
    parameters = parse_parameters(headers["content-disposition"])
    filename = _CONTROL.sub("", parameters.get("filename", "")).strip()
    return Part(parameters.get("name", ""), filename or None, body[blank_line.end() : end])


def _read_headers(head: bytes) -> dict[str, str]:
    """Return the first value of each header by its name in lower case."""
    headers: dict[str, str] = {}
    for line in _CONTINUATION.sub(b" ", head).splitlines():
        name, _, value = _decode(line).partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    return headers


def _decode(line: bytes) -> str:
    """Decode the text of a header. Clients that do not use UTF-8 send the code page of the machine, often Windows-1252.

    Every text can be decoded, because an image must not be refused for its file name, which is optional.
    """
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace")


def _malformed(detail: str) -> BadRequest:
    return BadRequest(detail, code="malformed_form")
