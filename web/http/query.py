"""Query parameters: each at most once, none unknown, none empty."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from flask import request
from pydantic_core import PydanticCustomError
from werkzeug.datastructures import MultiDict

from shared.errors import FieldError, Invalid
from shared.ledger.queries import Filters
from shared.states import BatchState, ImageState
from web.http.problems import pointer
from web.http.timestamps import parse_timestamp

STATUSES: Final = (*(state.value for state in ImageState), BatchState.PARTIAL.value)
_MAX_PAGE: Final = 10**9
_DIGITS: Final = 18
_NUMBER: Final = re.compile(r"\+?([0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})(e-?[0-9]{1,3})?\Z", re.ASCII | re.IGNORECASE)
_SECONDS: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?\Z")


def read(readers: dict[str, Callable[[str], Any]], query: MultiDict[str, str] | None = None) -> dict[str, Any]:
    """Read the query by a function a name; what is not given is not in the result.

    :param query: else it is the request's.
    :raises Invalid: with an error for each parameter that is unknown, empty, given twice or not readable.
    """
    values: dict[str, Any] = {}
    errors = []
    for name, given in (request.args if query is None else query).lists():
        if name not in readers:
            errors.append(FieldError(pointer(name), "unknown_parameter", f"Known are: {', '.join(sorted(readers))}."))
        elif len(given) > 1:
            errors.append(FieldError(pointer(name), "given_twice", "Give this parameter once."))
        elif not given[0].strip():
            errors.append(FieldError(pointer(name), "empty", "This parameter is empty."))
        else:
            try:
                values[name] = readers[name](given[0].strip())
            except ValueError as error:
                errors.append(FieldError(pointer(name), "bad_value", str(error)))
    if errors:
        raise Invalid("The query has parameters that are not acceptable.", errors=errors)
    return values


def whole(least: int, most: int, *, clip: bool = False) -> Callable[[str], int]:
    """Read a whole number within bounds; ``clip`` takes a larger one for the largest."""

    def reader(text: str) -> int:
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"Give a whole number from {least} to {most}.")
        value = int(text) if len(text) <= _DIGITS else most + 1
        value = min(value, most) if clip else value
        if not least <= value <= most:
            raise ValueError(f"Give a whole number from {least} to {most}.")
        return value

    return reader


def _text(text: str) -> str:
    if len(text) > 200 or "\0" in text:
        raise ValueError("Give at most 200 characters, no NUL.")
    return text


def _status(text: str) -> str:
    if text not in STATUSES:
        raise ValueError(f"Give one of: {', '.join(STATUSES)}.")
    return text


def share(text: str) -> float:
    """Read a number from 0 to 1."""
    if not _NUMBER.match(text) or float(text) > 1:
        raise ValueError("Give a number from 0 to 1.")
    return float(text)


def _time(text: str) -> datetime:
    try:
        return parse_timestamp(float(text)) if _SECONDS.match(text) else parse_timestamp(text)
    except PydanticCustomError as error:
        raise ValueError(error.message()) from None


WAIT: Final = whole(0, 30, clip=True)
"""Seconds that an answer may wait for what it is about."""
FILTERS: Final[dict[str, Callable[[str], Any]]] = {
    "store_name": _text,
    "camera_id": _text,
    "barcode": _text,
    "status": _status,
    "label": _text,
    "min_score": share,
    "tag": _text,
    "since": _time,
    "until": _time,
}
PAGING: Final[dict[str, Callable[[str], Any]]] = {
    "page": whole(1, _MAX_PAGE),
    "per_page": whole(1, 100),
    "cursor": _text,
    "images_per_batch": whole(0, 1000),
}


def filters(values: dict[str, Any]) -> Filters:
    """Pick the filters out of the values read."""
    return Filters(**{name: values[name] for name in FILTERS if name in values})
