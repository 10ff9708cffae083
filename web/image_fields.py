"""The types of the fields of an image that a client sends, in an upload or to correct an image; and the rules of ``extra``."""

import math
from datetime import datetime
from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from shared.storage.schema import MAX_BARCODE_LENGTH, MAX_NAME_LENGTH
from web.http.timestamps import parse_timestamp

EXTRA_MAX_BYTES: Final = 4096
_EXTRA_MAX_DEPTH: Final = 16
_INT64: Final = 2**63


def _int_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def without_nul(value: str) -> str:
    """Return a text unchanged.

    :raises PydanticCustomError: when it contains a NUL character (``bad_text``).
    """
    if "\0" in value:
        raise PydanticCustomError("bad_text", "The text contains a NUL character; remove it.")
    return value


Name = Annotated[
    str,
    StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=MAX_NAME_LENGTH),
    AfterValidator(without_nul),
]
StoreName = Annotated[Name, Field(examples=["Main Street"])]
CameraId = Annotated[Name, BeforeValidator(_int_as_text, json_schema_input_type=Name | int), Field(examples=["cam-1"])]
Barcode = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, max_length=MAX_BARCODE_LENGTH), AfterValidator(without_nul)
]
Timestamp = Annotated[
    datetime,
    BeforeValidator(parse_timestamp, json_schema_input_type=str | float),
    Field(description="RFC 3339 time (UTC if it has no offset), or Unix seconds", examples=["2026-01-15T09:00:00Z"]),
]


def check_extra(extra: dict[str, Any]) -> tuple[str, str] | None:
    """Return an error code and a sentence if the extra keys of an image are invalid, else None."""
    if not extra:
        return None
    try:
        size = len(orjson.dumps(extra))
    except (TypeError, orjson.JSONEncodeError):
        return "bad_extra", "The extra keys cannot be stored; use only JSON values with numbers of at most 64 bits."
    if size > EXTRA_MAX_BYTES:
        return "extra_too_large", f"The extra keys are too large; send at most {EXTRA_MAX_BYTES} bytes as JSON."
    if not _is_storable(extra, _EXTRA_MAX_DEPTH):
        return (
            "bad_extra",
            "The extra keys cannot be stored; use names without NUL, no object with both $ref and $id, at most 16 nested levels, and finite numbers of at most 64 bits.",
        )
    return None


def _storable_extra(value: dict[str, Any]) -> dict[str, Any]:
    problem = check_extra(value)
    if problem is not None:
        code, sentence = problem
        raise PydanticCustomError(code, "{sentence}", {"sentence": sentence})
    return value


def _is_storable(value: object, max_depth: int) -> bool:
    if max_depth == 0:
        return False
    if isinstance(value, dict):
        if "$ref" in value and "$id" in value:  # the driver would return a database reference instead of the object
            return False
        return all("\0" not in key and _is_storable(inner, max_depth - 1) for key, inner in value.items())
    if isinstance(value, list):
        return all(_is_storable(inner, max_depth - 1) for inner in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return not (isinstance(value, int) and not -_INT64 <= value < _INT64)


Extra = Annotated[
    dict[str, Any],
    Field(strict=True, description=f"Any JSON members, of at most {EXTRA_MAX_BYTES} bytes together"),
    AfterValidator(_storable_extra),
]
