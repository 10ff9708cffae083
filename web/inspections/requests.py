"""Determine from a request which image to inspect and how to inspect it. The image is sent as a URL or in the body."""

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
from web.http.body_limits import too_large
from web.http.field_errors import field_errors
from web.http.json_body import parse_json
from web.http.multipart import parse_form
from web.http.problems import pointer
from web.http.request_body import RequestBody
from web.inspections.schemas import ImageByUrl

_MAX_JSON_BYTES: Final = 64 * 1024
_MAX_FORM_OVERHEAD: Final = 64 * 1024
"""The maximum number of bytes that a form may have in addition to its file."""
_ABSOLUTE_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ACCEPTED: Final = ["application/json", "multipart/form-data", "image/*", "application/octet-stream"]
_SEND_IMAGE: Final = "The request has no image; send an image or the URL of an image."


@dataclass(frozen=True, slots=True)
class InspectionRequest:
    """A requested inspection. ``data`` contains the bytes of an uploaded image; it is None if the client sent a URL."""

    source: Source
    recipe: Recipe
    wait_s: float
    data: bytes | None = field(default=None, repr=False)


def from_query(settings: Settings) -> InspectionRequest:
    """Read the inspection from the query ``?url=&augmentations=&seed=&wait=``.

    :raises Invalid: when the URL is missing (``no_source``), or when a parameter is invalid.
    :raises UrlRefused: when the URL is not allowed.
    """
    if not request.args.get("url", "").strip():
        raise _no_source("The URL is missing; send the URL of an image.")
    values = query.read(
        {"url": _url, "augmentations": _augmentations, "seed": query.integer(0, MAX_SEED), "wait": query.WAIT},
        request.args,  # the URL can contain percent-encoded bytes of any encoding
    )
    recipe = Augment(values.get("augmentations", AUGMENTATIONS), values.get("seed", 0))
    return InspectionRequest(Source(values["url"]), recipe, values.get("wait", settings.inspect.wait_s))


def from_request(settings: Settings, body: RequestBody) -> InspectionRequest:
    """Read the inspection from a request that has a URL in its query or in its JSON body, or an image in its body.

    :raises BadRequest: when the request has no image or more than one image, or when it has any other error.
    :raises SourceTooLarge: when the image has too many bytes.
    :raises NotAnImage: when the body is not an image in a supported format.
    """
    url, named_part = split_query(request.query_string.decode())
    parameters = MultiDict(parse_qsl(named_part, keep_blank_values=True))
    if url is None and parameters.get("url") == "":
        raise _no_source(_SEND_IMAGE)
    values = query.read(_OPTIONS | ({"url": _url} if url is None else {}), parameters)
    if url is not None:
        values["url"] = _url(url)
    fields, data = _read_body(settings, body)
    for name in values.keys() & fields.keys():
        detail = "This field is in the query and in the body; send it in only one of them."
        raise Invalid(
            "The query and the body have the same field; send it in only one of them.",
            errors=[FieldError(pointer(name), "given_twice", detail)],
        )
    values |= fields
    if data is not None and "url" in values:
        raise Invalid(
            "The request has a URL and an image; send only one of them.",
            errors=[FieldError("/url", "given_twice", "The body already contains an image; omit the URL.")],
        )
    if data is None and "url" not in values:
        raise _no_source(_SEND_IMAGE)
    source = Source(values["url"]) if data is None else Source(sha256=hashlib.sha256(data).hexdigest())
    return InspectionRequest(source, Describe(_dream(values)), values.get("wait", settings.inspect.wait_s), data)


def split_query(query_string: str) -> tuple[str | None, str]:
    """Split a query string of the form ``/img?<url>`` into the URL and the named parameters after it.

    If the URL is not percent-encoded, it can have query parameters of its own. All parameters then belong to the URL,
    except those at the end of the query string that have the names of options of this service.

    :returns: the URL, and the query string with the named parameters. The URL is None if the query has only named
        parameters.
    :raises UrlRefused: when the percent-encoded bytes are not UTF-8 (``bad_url``).
    """
    steps = query_string.split("&")
    if not query_string or _name(steps[0]) in {"url", *_OPTIONS}:
        return None, query_string
    end = len(steps)
    while _name(steps[end - 1]) in _OPTIONS:  # the loop always ends, because the first step is not an option
        end -= 1
    url = "&".join(steps[:end])
    try:
        return (url if _ABSOLUTE_URL.match(url) else unquote(url, errors="strict")), "&".join(steps[end:])
    except UnicodeDecodeError:
        raise UrlRefused("The URL is not UTF-8 text; encode it as UTF-8.") from None


def _name(step: str) -> str:
    return step.partition("=")[0]


def _url(text: str) -> str:
    return str(urls.parse(text))


def _augmentations(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not set(names) <= set(AUGMENTATIONS):
        raise ValueError(
            f"Unknown augmentation; send names separated by commas. Valid names: {', '.join(AUGMENTATIONS)}."
        )
    return names


def _effect(text: str) -> str:
    if text != DREAM:
        raise ValueError(f"This effect is unknown; the only valid value is {DREAM}.")
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
        detail = f"This option requires effect={DREAM}; add the effect, or omit the option."
        raise Invalid(
            "The request has options for an effect but no effect; add `effect`, or omit the options.",
            errors=[FieldError(pointer(name), "bad_value", detail) for name in options],
        )
    return None


def _read_body(settings: Settings, body: RequestBody) -> tuple[dict[str, Any], bytes | None]:
    """Read the body of a request.

    :returns: the fields of a JSON body, and the bytes of an image. If the body has no fields, the dictionary is empty.
        If the body has no image, the bytes are None.
    """
    if body.length == 0:
        return {}, None
    limit = settings.inspect.max_source_bytes
    if body.is_json:
        try:
            text = body.read(_MAX_JSON_BYTES)
        except TooLarge:
            raise too_large(_MAX_JSON_BYTES, "max_json_bytes") from None
        return (_fields(parse_json(text, settings.limits.max_values)) if text else {}), None
    if not (body.is_form or body.media_type.startswith("image/") or body.media_type == "application/octet-stream"):
        raise UnsupportedMedia(
            "Unsupported content type; send JSON with `url`, a form with one file, or the image itself.",
            extra={"accepted": _ACCEPTED},
        )
    try:
        data = body.read(limit + _MAX_FORM_OVERHEAD if body.is_form else limit)
    except TooLarge:
        raise _too_large(limit) from None
    if body.is_form:
        data = _file(data, body.boundary)
    elif not data:
        return {}, None  # a chunked body can be empty
    if len(data) > limit:
        raise _too_large(limit)
    if sniff(data) is None:
        raise NotAnImage(
            "The body is not an image in a supported format; send JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF."
        )
    return {}, data


def _fields(tree: Any) -> dict[str, Any]:
    try:
        fields = ImageByUrl.model_validate(tree).model_dump(exclude_none=True)
    except ValidationError as error:
        raise Invalid("The body has invalid fields; see the `errors` field.", errors=field_errors(error)) from None
    return fields | {"url": _url(fields["url"])}


def _file(body: bytes, boundary: str) -> bytes:
    parts = parse_form(body, boundary, max_images=1)
    errors = [
        FieldError(pointer(part.name), "unknown_field", "This part is unknown; send options in the query string.")
        for part in parts
        if part.name != "file"
    ]
    files = [part.data for part in parts if part.name == "file"]
    if len(files) != 1:
        errors.append(
            FieldError("/file", "given_twice" if files else "missing", "The form must have exactly one file.")
        )
    if errors:
        raise Invalid("The form is invalid; send exactly one part, named `file`.", errors=errors)
    return files[0]


def _no_source(detail: str) -> Invalid:
    return Invalid(detail, code="no_source", errors=[FieldError("/url", "missing", detail)])


def _too_large(limit: int) -> SourceTooLarge:
    return SourceTooLarge(
        f"The image is larger than {limit:,} bytes; send a smaller image.",
        extra={"limit": "max_source_bytes", "value": limit},
    )
