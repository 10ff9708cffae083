"""Query parameters: each at most once, none unknown, none empty."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from flask import request
from pydantic_core import PydanticCustomError
from werkzeug.datastructures import MultiDict

from shared.errors import FieldError, Invalid
from web.http.problems import pointer
from web.http.timestamps import parse_timestamp

_MAX_DIGITS: Final = 18
_NUMBER: Final = re.compile(r"\+?([0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})(e-?[0-9]{1,3})?\Z", re.ASCII | re.IGNORECASE)
_SECONDS: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?\Z")


def read(readers: dict[str, Callable[[str], Any]], query: MultiDict[str, str] | None = None) -> dict[str, Any]:
    """Read the query, each parameter by the function under its name.

    :param readers: a function for each known parameter; it raises ``ValueError`` with a sentence for the client.
    :param query: the request's own if None.
    :returns: the value of each parameter that was sent.
    :raises Invalid: with an error for each parameter that is unknown, empty, sent twice or not readable.
    """
    values: dict[str, Any] = {}
    errors = []
    for name, texts in (request.args if query is None else query).lists():
        if name not in readers:
            errors.append(FieldError(pointer(name), "unknown_parameter", f"Known are: {', '.join(sorted(readers))}."))
        elif len(texts) > 1:
            errors.append(FieldError(pointer(name), "given_twice", "Give this parameter once."))
        elif not texts[0].strip():
            errors.append(FieldError(pointer(name), "empty", "This parameter is empty."))
        else:
            try:
                values[name] = readers[name](texts[0].strip())
            except ValueError as error:
                errors.append(FieldError(pointer(name), "bad_value", str(error)))
    if errors:
        raise Invalid("The query has invalid parameters; errors lists them.", errors=errors)
    return values


def integer(minimum: int, maximum: int, *, clip: bool = False) -> Callable[[str], int]:
    """Return a reader of integers within bounds; with ``clip`` a larger one counts as the maximum."""

    def reader(text: str) -> int:
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"Give a whole number from {minimum} to {maximum}.")
        value = int(text) if len(text) <= _MAX_DIGITS else maximum + 1
        value = min(value, maximum) if clip else value
        if not minimum <= value <= maximum:
            raise ValueError(f"Give a whole number from {minimum} to {maximum}.")
        return value

    return reader


def text(text: str) -> str:
    """Read text of at most 200 characters."""
    if len(text) > 200 or "\0" in text:
        raise ValueError("Give at most 200 characters, no NUL.")
    return text


def fraction(text: str) -> float:
    """Read a number from 0 to 1."""
    if not _NUMBER.match(text) or float(text) > 1:
        raise ValueError("Give a number from 0 to 1.")
    return float(text)


def timestamp(text: str) -> datetime:
    """Read a time: RFC 3339 or Unix seconds, as ``parse_timestamp`` does."""
    try:
        return parse_timestamp(float(text)) if _SECONDS.match(text) else parse_timestamp(text)
    except PydanticCustomError as error:
        raise ValueError(error.message()) from None


WAIT: Final = integer(0, 30, clip=True)
"""Reads ``wait=``: seconds that a response may wait for the end of what it shows."""
