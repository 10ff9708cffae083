"""Read query parameters. Unknown, empty and repeated parameters are refused, and so is text that is not UTF-8."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import unquote_plus

from flask import Flask, request
from pydantic import StringConstraints, TypeAdapter
from pydantic_core import PydanticCustomError
from werkzeug.datastructures import MultiDict

from shared.errors import FieldError, Invalid
from web.http.problems import pointer
from web.http.timestamps import parse_timestamp

MAX_PAGE: Final = 10**9
_MAX_DIGITS: Final = 18
_NUMBER: Final = re.compile(r"\+?([0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})(e-?[0-9]{1,3})?\Z", re.ASCII | re.IGNORECASE)
trim: Final[Callable[[str], str]] = TypeAdapter(Annotated[str, StringConstraints(strip_whitespace=True)]).validate_python
"""Removes the white space that uploads remove from the texts that they store. ``str.strip`` also removes U+001C to U+001F."""


def read(readers: dict[str, Callable[[str], Any]], query: MultiDict[str, str] | None = None) -> dict[str, Any]:
    """Read each parameter of the query with the function that ``readers`` contains for the parameter.

    :param readers: for each known parameter, the function that parses its value. For an invalid value, the function raises
        ``ValueError`` with a sentence for the client.
    :param query: the query to read. If None, the query of the current request is read, which must be UTF-8 text.
    :returns: the value of each parameter that the client sent.
    :raises Invalid: when parameters are unknown, empty, repeated or invalid. The exception has an error for each of them.
    """
    values: dict[str, Any] = {}
    errors = []
    known = f"Valid names: {', '.join(sorted(readers))}." if readers else "Requests of this kind have no query parameters; omit it."
    not_utf8 = _names_of_other_encodings() if query is None else set()
    for name, texts in (request.args if query is None else query).lists():
        if name in not_utf8:
            errors.append(FieldError(pointer(name), "bad_value", "This parameter is not UTF-8 text; encode it as UTF-8."))
        elif name not in readers:
            errors.append(FieldError(pointer(name), "unknown_parameter", f"This parameter is unknown. {known}"))
        elif len(texts) > 1:
            errors.append(FieldError(pointer(name), "given_twice", "This parameter is repeated; send it once."))
        elif not (trimmed := trim(texts[0])):
            errors.append(FieldError(pointer(name), "empty", "This parameter is empty; send a value, or omit it."))
        else:
            try:
                values[name] = readers[name](trimmed)
            except ValueError as error:
                errors.append(FieldError(pointer(name), "bad_value", str(error)))
    if errors:
        raise Invalid("The query has invalid parameters; see the `errors` field.", errors=errors)
    return values


def install(app: Flask) -> None:
    """Make ``app`` refuse each request whose query has bytes that are neither percent-encoded nor UTF-8."""
    app.before_request(_refuse_other_encodings)


def is_utf8() -> bool:
    """Return whether the query of the current request is UTF-8 text, apart from what is percent-encoded.

    If it is not, ``request.args`` raises ``UnicodeDecodeError``.
    """
    try:
        request.query_string.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refuse_other_encodings() -> None:
    if not is_utf8():
        raise Invalid("The query is not UTF-8 text; encode it as UTF-8, and percent-encode it.")


def _names_of_other_encodings() -> set[str]:
    """Return the names of the parameters whose percent-encoded values are not UTF-8, such as ``Caf%E9``.

    Werkzeug does not decode the percent signs in such a value, so a filter would look for another text in vain.
    """
    names = set()
    for parameter in request.query_string.decode().split("&"):
        name, _, value = parameter.partition("=")
        try:
            unquote_plus(value, errors="strict")
        except UnicodeDecodeError:
            names.add(unquote_plus(name))
    return names


def integer(minimum: int, maximum: int, *, clip: bool = False) -> Callable[[str], int]:
    """Return a function that parses an integer between ``minimum`` and ``maximum``.

    :param clip: whether a larger integer is replaced with ``maximum``. If False, a larger integer raises ``ValueError``.
    """

    def reader(text: str) -> int:
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"The value is invalid; send an integer from {minimum} to {maximum}.")
        value = int(text) if len(text) <= _MAX_DIGITS else maximum + 1
        value = min(value, maximum) if clip else value
        if not minimum <= value <= maximum:
            raise ValueError(f"The value is invalid; send an integer from {minimum} to {maximum}.")
        return value

    return reader


def text(text: str) -> str:
    """Check that the value of a parameter has at most 200 characters and no NUL character, and return it."""
    if len(text) > 200 or "\0" in text:
        raise ValueError("The text is invalid; send at most 200 characters, without NUL characters.")
    return text


def number(maximum: int) -> Callable[[str], float]:
    """Return a function that parses a number from 0 to ``maximum``."""

    def reader(text: str) -> float:
        if not _NUMBER.match(text) or float(text) > maximum:
            raise ValueError(f"The value is invalid; send a number from 0 to {maximum}.")
        return float(text)

    return reader


fraction: Final = number(1)
"""Parses the value of a parameter as a number from 0 to 1."""


def boolean(text: str) -> bool:
    """Parse the value of a parameter as ``true`` or ``false``."""
    if text not in {"true", "false"}:
        raise ValueError("The value is invalid; send true or false.")
    return text == "true"


def timestamp(text: str) -> datetime:
    """Parse the value of a parameter as a time: RFC 3339 or Unix seconds, as defined by ``parse_timestamp``."""
    try:
        return parse_timestamp(text)
    except PydanticCustomError as error:
        raise ValueError(error.message()) from None


WAIT: Final = integer(0, 30, clip=True)
"""Reads ``wait=``, the maximum number of seconds to wait until the requested batch or inspection is finished."""
