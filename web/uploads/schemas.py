"""The pydantic models for the fields of an upload. They validate requests, and OpenAPI is generated from them."""

import math
from datetime import datetime
from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from shared.storage.schema import MAX_BARCODE_LENGTH, MAX_NAME_LENGTH
from web.http.timestamps import parse_timestamp

EXTRA_MAX_BYTES: Final = 4096
_EXTRA_MAX_DEPTH: Final = 16
_INT64: Final = 2**63
_SMALL_PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
"""An image of one pixel, as an example."""


def _int_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise PydanticCustomError("bad_text", "The text contains a NUL character; remove it.")
    return value


Name = Annotated[
    str,
    StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=MAX_NAME_LENGTH),
    AfterValidator(_without_nul),
]
Barcode = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, max_length=MAX_BARCODE_LENGTH), AfterValidator(_without_nul)
]
Filename = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, max_length=255), AfterValidator(_without_nul)
]
Sha256 = Annotated[
    str,
    StringConstraints(strict=True, pattern="^[0-9A-Fa-f]{64}$"),
    Field(description="SHA-256 digest of the decoded file, which is compared with the file"),
]
Timestamp = Annotated[
    datetime,
    BeforeValidator(parse_timestamp, json_schema_input_type=str | float),
    Field(description="RFC 3339 time (UTC if it has no offset), or Unix seconds", examples=["2026-01-15T09:00:00Z"]),
]


class ImageMeta(BaseModel):
    """The metadata of an image. Unknown keys are stored in ``extra``."""

    model_config = ConfigDict(extra="allow")

    timestamp: Timestamp
    store_name: Annotated[Name, Field(examples=["Main Street"])]
    camera_id: Annotated[Name, BeforeValidator(_int_as_text, json_schema_input_type=Name | int), Field(examples=["cam-1"])]
    barcode: Barcode | None = None
    filename: Filename | None = None
    sha256: Sha256 | None = None


class ImageIn(ImageMeta):
    """An image with its file."""

    file: Annotated[
        str,
        Field(
            strict=True,
            description="The image file as base64. A data: prefix and whitespace are allowed.",
            examples=[_SMALL_PNG],
            json_schema_extra={"contentEncoding": "base64", "minLength": 4},
        ),
    ]


_FIELDS: Final = frozenset(ImageIn.model_fields)  # a constant, because pydantic computes `model_fields` for each access


class Envelope(BaseModel):
    """An upload in the form of a JSON object, without its images."""

    model_config = ConfigDict(extra="forbid")

    augmentations: Annotated[list[Annotated[str, Field(strict=True)]], Field(max_length=100)] | None = None
    detect: Annotated[bool, Field(strict=True)] = True


def extra_fields(item: dict[str, Any]) -> dict[str, Any]:
    """Return the value that is stored in the ``extra`` field of an image.

    The value contains the unknown keys of the image. If the client sent an object as ``extra``, the value also contains the
    keys of this object.
    """
    extra = {key: value for key, value in item.items() if key not in _FIELDS}
    sent_extra = extra.pop("extra", None)
    if isinstance(sent_extra, dict):
        extra = {**sent_extra, **extra}
    elif sent_extra is not None:
        extra["extra"] = sent_extra
    return extra


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
