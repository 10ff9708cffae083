"""Decode the files in the JSON of an upload before the JSON is parsed.

Nearly all bytes of an upload are the base64 text of its files. A JSON parser reads this text and copies it, and it is read
once more to be decoded. This module decodes it where it is, while it is in the processor's cache, and leaves a JSON text
without it. This takes a third less time than parsing the whole JSON, and less memory by the size of the body.
"""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pybase64

_KEY: Final = b'"file"'
_OPENING: Final = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*"')
_DATA_PREFIX: Final = re.compile(rb"data:[ !#-+\--\[\]-~]{0,200},", re.IGNORECASE)
"""A prefix of characters that a JSON string contains unescaped, up to the first comma."""
_MIN_BYTES: Final = 4096
"""The minimum size of a base64 text that is taken out of the JSON."""


@dataclass(frozen=True, slots=True)
class DetachedFiles:
    """The JSON of an upload after its files were detached.

    In ``json``, each detached file is replaced with a text that occurs nowhere else, which is its key in ``files``.
    """

    json: bytes
    files: dict[str, bytes]


def detach_files(
    body: bytes, max_files: int, on_file: Callable[[bytes], object] = lambda _: None
) -> DetachedFiles | None:
    """Decode the long base64 texts that follow a key ``"file"``, and take them out of the JSON.

    This function does not parse the JSON, so a detached text can be another value than the file of an image. The caller
    must therefore parse the whole body if ``json`` has any error, or if not every file belongs to an image.

    :param on_file: called with each file as soon as it has been decoded.
    :returns: None if there is no such text, if one of them is not plain base64 (for example because it contains escaped
        characters), or if there are more than ``max_files``.
    """
    token = uuid.uuid4().hex
    pieces: list[bytes] = []
    files: dict[str, bytes] = {}
    copied = position = 0
    for _ in range(2 * max_files):  # a bound for other values with this key
        position = body.find(_KEY, position)
        if position < 0:
            break
        position += len(_KEY)
        opening = _OPENING.match(body, position)
        if opening is None:
            continue
        start, end = opening.end(), body.find(b'"', opening.end())
        if end - start < _MIN_BYTES:
            continue
        data = _decode(body, start, end)
        if data is None:
            return None
        name = f"{token}-{len(files)}"
        files[name] = data
        on_file(data)
        pieces += [body[copied:start], name.encode()]
        copied = position = end
    if not files or len(files) > max_files:
        return None
    return DetachedFiles(b"".join([*pieces, body[copied:]]), files)


def _decode(body: bytes, start: int, end: int) -> bytes | None:
    prefix = _DATA_PREFIX.match(body, start, end)
    with memoryview(body) as whole, whole[prefix.end() if prefix else start : end] as text:
        try:
            return pybase64.b64decode(text, validate=True)
        except ValueError:
            return None
