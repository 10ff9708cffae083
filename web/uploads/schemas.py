"""The fields of an upload, as pydantic models: they validate, and OpenAPI is generated from them."""

import math
from datetime import datetime
from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from web.http.timestamps import parse_timestamp

EXTRA_MAX_BYTES: Final = 4096
_EXTRA_MAX_DEPTH: Final = 16
_INT64: Final = 2**63


def _int_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise PydanticCustomError("bad_text", "Text may not contain NUL characters.")
    return value


Name = Annotated[
    str,
    StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(_without_nul),
]
Barcode = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, max_length=64), AfterValidator(_without_nul)
]
Filename = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, max_length=255), AfterValidator(_without_nul)
]
Timestamp = Annotated[
    datetime,
    BeforeValidator(parse_timestamp, json_schema_input_type=str | float),
    Field(description="RFC 3339 (naive means UTC) or Unix seconds"),
]


class ImageMeta(BaseModel):
    """The metadata of an image. Unknown keys are stored under ``extra``."""

    model_config = ConfigDict(extra="allow")

    timestamp: Timestamp
    store_name: Name
    camera_id: Annotated[Name, BeforeValidator(_int_as_text, json_schema_input_type=Name | int)]
    barcode: Barcode | None = None
    filename: Filename | None = None


class ImageIn(ImageMeta):
    """An image with its file."""

    file: Annotated[
        str,
        Field(
            strict=True,
            description="base64; a data: prefix and white space are tolerated",
            json_schema_extra={"contentEncoding": "base64", "minLength": 4},
        ),
    ]


class Envelope(BaseModel):
    """The object form of an upload, without its images."""

    model_config = ConfigDict(extra="forbid")

    augmentations: Annotated[list[Annotated[str, Field(strict=True)]], Field(max_length=100)] | None = None
    detect: Annotated[bool, Field(strict=True)] = True


def extra_fields(item: dict[str, Any]) -> dict[str, Any]:
    """Return what is stored of an image under ``extra``: its unknown keys, merged into an object sent as ``extra``."""
    extra = {key: value for key, value in item.items() if key not in ImageIn.model_fields}
    sent_extra = extra.pop("extra", None)
    if isinstance(sent_extra, dict):
        extra = {**sent_extra, **extra}
    elif sent_extra is not None:
        extra["extra"] = sent_extra
    return extra


def check_extra(extra: dict[str, Any]) -> tuple[str, str] | None:
    """Return code and sentence of what is wrong with an image's extra keys, or None."""
    if not extra:
        return None
    try:
        size = len(orjson.dumps(extra))
    except (TypeError, orjson.JSONEncodeError):
        return "bad_extra", "Extra keys must be plain JSON with numbers of at most 64 bits."
    if size > EXTRA_MAX_BYTES:
        return "extra_too_large", f"Extra keys may take at most {EXTRA_MAX_BYTES} bytes as JSON."
    if not _is_storable(extra, _EXTRA_MAX_DEPTH):
        return (
            "bad_extra",
            "Extra keys are names without NUL or a leading $, at most 16 levels deep, numbers finite and of at most 64 bits.",
        )
    return None


def _is_storable(value: object, max_depth: int) -> bool:
    if max_depth == 0:
        return False
    if isinstance(value, dict):
        return all(
            "\0" not in key and not key.startswith("$") and _is_storable(inner, max_depth - 1)
            for key, inner in value.items()
        )
    if isinstance(value, list):
        return all(_is_storable(inner, max_depth - 1) for inner in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return not (isinstance(value, int) and not -_INT64 <= value < _INT64)
