"""What a client may send, as pydantic models: they validate, and OpenAPI is generated from them."""

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from shared.fetch.urls import MAX_LENGTH
from shared.inspections.recipes import DREAM_LAYERS

EXTRA_MAX_BYTES: Final = 4096
_EXTRA_MAX_DEPTH: Final = 16
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?\Z")
_INT64: Final = 2**63


def parse_time(value: object) -> datetime:
    """Read a time: RFC 3339 (without an offset it is UTC) or Unix seconds.

    :returns: naive UTC, to the millisecond, as the database keeps it.
    :raises PydanticCustomError: ``bad_timestamp``.
    """
    bad = PydanticCustomError("bad_timestamp", "Give a time as RFC 3339, or as Unix seconds.")
    try:
        if isinstance(value, bool):
            raise bad
        if isinstance(value, int | float):
            moment = datetime.fromtimestamp(value, UTC)
        elif isinstance(value, str) and _RFC3339.match(value.strip()):
            text = value.strip().upper()
            leap = text[17:19] == "60"  # RFC 3339, 5.7; Python knows none
            moment = datetime.fromisoformat(text[:17] + "59" + text[19:] if leap else text) + timedelta(seconds=leap)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        else:
            raise bad
    except (ValueError, OverflowError, OSError) as error:
        raise bad from error
    return moment.replace(tzinfo=None, microsecond=moment.microsecond // 1000 * 1000)


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
    BeforeValidator(parse_time, json_schema_input_type=str | float),
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


class PictureIn(BaseModel):
    """One picture to be looked at, by its URL."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=MAX_LENGTH)]
    effect: Literal["deepdream"] | None = None
    layer: Annotated[int, Field(strict=True, ge=DREAM_LAYERS[0], le=DREAM_LAYERS[-1])] | None = None
    strength: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None


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
