"""Which image a request means, by URL or in its body, and what is to be made of it."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from flask import request
from pydantic import ValidationError
from werkzeug.datastructures import MultiDict

from shared.augmentations import AUGMENTATIONS
from shared.errors import FieldError, Invalid, NotAnImage, SourceTooLarge, TooLarge, UnsupportedMedia, UrlRefused
from shared.fetch import urls
from shared.inspections.recipes import MAX_SEED, Augment, Describe, Dream, Recipe, Source
from shared.media_types import sniff
from shared.settings import Settings
from shared.variants import DREAM, DREAM_LAYERS
from web.http import query
from web.http.field_errors import field_errors
from web.http.json_body import parse_json
from web.http.multipart import parse_form
from web.http.problems import pointer
from web.http.request_body import RequestBody
from web.inspections.schemas import PictureIn

_SIGNATURE_BYTES: Final = 32
_MAX_JSON_BYTES: Final = 64 * 1024
_MAX_FORM_OVERHEAD: Final = 64 * 1024
"""Bytes that a form may have besides its file."""
_ABSOLUTE_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ACCEPTED: Final = ["application/json", "multipart/form-data", "image/*", "application/octet-stream"]
_SEND_IMAGE: Final = "Send the URL of an image, or an image."


@dataclass(frozen=True, slots=True)
class InspectionRequest:
    """A requested inspection. ``data`` holds the bytes of an uploaded image."""

    source: Source
    recipe: Recipe
    wait_s: float
    data: bytes | None = field(default=None, repr=False)


def from_query(settings: Settings) -> InspectionRequest:
    """Read ``?url=&augmentations=&seed=&wait=``.

    :raises Invalid: ``no_source``, or a parameter is not acceptable. :raises UrlRefused: the URL is not allowed.
    """
    if not request.args.get("url", "").strip():
        raise _no_source("Give the URL of an image.")
    values = query.read(
        {"url": _url, "augmentations": _augmentations, "seed": query.integer(0, MAX_SEED), "wait": query.WAIT}
    )
    recipe = Augment(values.get("augmentations", AUGMENTATIONS), values.get("seed", 0))
    return InspectionRequest(Source(values["url"]), recipe, values.get("wait", settings.inspect.wait_s))


def from_request(settings: Settings, body: RequestBody) -> InspectionRequest:
    """Read a request with a URL in its query or in its JSON, or with an image in its body.

    :raises BadRequest: it has no image or more than one, or something else of it is not acceptable.
    :raises SourceTooLarge: the image has too many bytes.
    :raises NotAnImage: the body is not an image in a supported format.
    """
    url, named_part = split_query(_query_string())
    parameters = MultiDict(parse_qsl(named_part, keep_blank_values=True))
    if url is None and parameters.get("url") == "":
        raise _no_source(_SEND_IMAGE)
    values = query.read(_OPTIONS | ({"url": _url} if url is None else {}), parameters)
    if url is not None:
        values["url"] = _url(url)
    fields, data = _read_body(settings, body)
    for name in values.keys() & fields.keys():
        detail = "Give it in the query or in the body, not in both."
        raise Invalid(
            "The query and the body have the same field.", errors=[FieldError(pointer(name), "given_twice", detail)]
        )
    values |= fields
    if data is not None and "url" in values:
        raise Invalid(
            "Send one image per request.",
            errors=[FieldError("/url", "given_twice", "The body contains an image, too.")],
        )
    if data is None and "url" not in values:
        raise _no_source(_SEND_IMAGE)
    source = Source(values["url"]) if data is None else Source(sha256=hashlib.sha256(data).hexdigest())
    return InspectionRequest(source, Describe(_dream(values)), values.get("wait", settings.inspect.wait_s), data)


def split_query(query_string: str) -> tuple[str | None, str]:
    """Separate a URL that is the query itself (``/img?<url>``) from named parameters.

    A URL that is not encoded is taken literally, without the parameters of this service at its end.

    :returns: the URL, or None; and the part of the query that has names.
    :raises UrlRefused: ``bad_url``; the encoded bytes are not UTF-8.
    """
    steps = query_string.split("&")
    if not query_string or _name(steps[0]) in {"url", *_OPTIONS}:
        return None, query_string
    end = len(steps)
    while _name(steps[end - 1]) in _OPTIONS:  # ends at the first step, which is not an option
        end -= 1
    url = "&".join(steps[:end])
    try:
        return (url if _ABSOLUTE_URL.match(url) else unquote(url, errors="strict")), "&".join(steps[end:])
    except UnicodeDecodeError:
        raise _not_utf8() from None


def _name(step: str) -> str:
    return step.partition("=")[0]


def _query_string() -> str:
    try:
        return request.query_string.decode()
    except UnicodeDecodeError:
        raise _not_utf8() from None


def _url(text: str) -> str:
    return str(urls.parse(text))


def _augmentations(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not set(names) <= set(AUGMENTATIONS):
        raise ValueError(f"Give names separated by commas; known are: {', '.join(AUGMENTATIONS)}.")
    return names


def _effect(text: str) -> str:
    if text != DREAM:
        raise ValueError(f"Give {DREAM}.")
    return text


_OPTIONS: Final[dict[str, Callable[[str], Any]]] = {
    "effect": _effect,
    "layer": query.integer(DREAM_LAYERS[0], DREAM_LAYERS[-1]),
    "strength": query.fraction,
    "wait": query.WAIT,
}


def _dream(values: dict[str, Any]) -> Dream | None:
    options = {name: values[name] for name in ("layer", "strength") if name in values}
    if "effect" in values:
        return Dream(**options)
    if options:
        detail = f"This option needs effect={DREAM}."
        raise Invalid(
            "The request has options of an effect but no effect.",
            errors=[FieldError(pointer(name), "bad_value", detail) for name in options],
        )
    return None


def _read_body(settings: Settings, body: RequestBody) -> tuple[dict[str, Any], bytes | None]:
    """Return the fields of a JSON body, or the image that the body is or contains."""
    if body.length == 0:
        return {}, None
    limit = settings.inspect.max_source_bytes
    if body.is_json:
        text = body.read(_MAX_JSON_BYTES)
        return (_fields(parse_json(text, settings.limits.max_values)) if text else {}), None
    if not (body.is_form or body.media_type.startswith("image/") or body.media_type == "application/octet-stream"):
        raise UnsupportedMedia(
            "Send JSON with a url, a form with one file, or the image itself.", extra={"accepted": _ACCEPTED}
        )
    try:
        data = body.read(limit + _MAX_FORM_OVERHEAD if body.is_form else limit)
    except TooLarge:
        raise _too_large(limit) from None
    if body.is_form:
        data = _file(data, body.boundary)
    elif not data:
        return {}, None  # a chunked body may turn out to be empty
    if len(data) > limit:
        raise _too_large(limit)
    if sniff(data[:_SIGNATURE_BYTES]) is None:
        raise NotAnImage(
            "The body is not an image in a supported format; send JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF."
        )
    return {}, data


def _fields(tree: Any) -> dict[str, Any]:
    try:
        fields = PictureIn.model_validate(tree).model_dump(exclude_none=True)
    except ValidationError as error:
        raise Invalid("The body has invalid fields; errors lists them.", errors=field_errors(error)) from None
    return fields | {"url": _url(fields["url"])}


def _file(body: bytes, boundary: str) -> bytes:
    parts = parse_form(body, boundary, max_images=1)
    errors = [
        FieldError(pointer(part.name), "unknown_field", "Pass options in the query string.")
        for part in parts
        if part.name != "file"
    ]
    files = [part.data for part in parts if part.name == "file"]
    if len(files) != 1:
        errors.append(FieldError("/file", "given_twice" if files else "missing", "Send one file."))
    if errors:
        raise Invalid("The form must be one part named file.", errors=errors)
    return files[0]


def _no_source(detail: str) -> Invalid:
    return Invalid(detail, code="no_source", errors=[FieldError("/url", "missing", detail)])


def _not_utf8() -> UrlRefused:
    return UrlRefused("The URL is not UTF-8 text; encode it as UTF-8.")


def _too_large(limit: int) -> SourceTooLarge:
    return SourceTooLarge(
        f"The image is larger than {limit:,} bytes.", extra={"limit": "max_source_bytes", "value": limit}
    )
