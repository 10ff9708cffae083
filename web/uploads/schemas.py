"""What a client may send, as pydantic models: they validate, and OpenAPI is generated from them."""

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


def _camera(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _clean(value: str) -> str:
    if "\0" in value:
        raise PydanticCustomError("bad_text", "Text may not hold NUL characters.")
    return value


Name = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_clean)
]
Barcode = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, max_length=64), AfterValidator(_clean)]
Filename = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, max_length=255), AfterValidator(_clean)]
Moment = Annotated[
    datetime,
    BeforeValidator(parse_timestamp, json_schema_input_type=str | float),
    Field(description="RFC 3339 (naive means UTC) or Unix seconds"),
]


class ImageMeta(BaseModel):
    """What is said of an image. Any other key is kept under ``extra``."""

    model_config = ConfigDict(extra="allow")

    timestamp: Moment
    store_name: Name
    camera_id: Annotated[Name, BeforeValidator(_camera, json_schema_input_type=Name | int)]
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
    """The object form of an upload, less its images."""

    model_config = ConfigDict(extra="forbid")

    augmentations: Annotated[list[Annotated[str, Field(strict=True)]], Field(max_length=100)] | None = None
    detect: Annotated[bool, Field(strict=True)] = True


def kept_extra(item: dict[str, Any]) -> dict[str, Any]:
    """Give what is kept of an image under ``extra``: unknown keys, merged with an object sent as ``extra``."""
    extra = {key: value for key, value in item.items() if key not in ImageIn.model_fields}
    given = extra.pop("extra", None)
    if isinstance(given, dict):
        extra = {**given, **extra}
    elif given is not None:
        extra["extra"] = given
    return extra


def check_extra(extra: dict[str, Any]) -> tuple[str, str] | None:
    """Say what is wrong with an image's extra keys: ``(code, sentence)``, or None."""
    if not extra:
        return None
    try:
        size = len(orjson.dumps(extra))
    except (TypeError, orjson.JSONEncodeError):
        return "bad_extra", "Extra keys must hold plain JSON with numbers of at most 64 bits."
    if size > EXTRA_MAX_BYTES:
        return "extra_too_large", f"Extra keys may take {EXTRA_MAX_BYTES} bytes as JSON."
    if not _storable(extra, _EXTRA_MAX_DEPTH):
        return "bad_extra", "Extra keys are names without NUL or a leading $, at most 16 levels deep, numbers finite and of at most 64 bits."
    return None


def _storable(value: object, depth: int) -> bool:
    if depth == 0:
        return False
    if isinstance(value, dict):
        return all("\0" not in key and not key.startswith("$") and _storable(inner, depth - 1) for key, inner in value.items())
    if isinstance(value, list):
        return all(_storable(inner, depth - 1) for inner in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return not (isinstance(value, int) and not -_INT64 <= value < _INT64)
