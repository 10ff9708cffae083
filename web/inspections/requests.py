"""Which picture a request means, by URL or by hand, and what is to be made of it."""

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
from shared.inspections.recipes import DREAM_LAYERS, MAX_SEED, Augment, Describe, Dream, Recipe, Source
from shared.media_types import sniff
from shared.settings import Settings
from shared.variants import DREAM
from web.http import body_limits, multipart, query
from web.http.problems import pointer
from web.uploads.parsing import field_errors, load
from web.uploads.schemas import PictureIn

_HEAD: Final = 32
_MAX_JSON_BYTES: Final = 64 * 1024
_AROUND_FILE: Final = 64 * 1024
"""Bytes that a form may have beside its file."""
_WHOLE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ACCEPTED: Final = ["application/json", "multipart/form-data", "image/*", "application/octet-stream"]


@dataclass(frozen=True, slots=True)
class Asked:
    """An inspection that is asked for. ``data`` are the bytes of a picture that was handed over."""

    source: Source
    recipe: Recipe
    wait_s: float
    data: bytes | None = field(default=None, repr=False)


def from_query(settings: Settings) -> Asked:
    """Read ``?url=&augmentations=&seed=&wait=``.

    :raises Invalid: ``no_source``, or a parameter is not acceptable. :raises UrlRefused: it is no URL that is fetched.
    """
    if not request.args.get("url", "").strip():
        raise _no_source("Give the address of a picture.")
    values = query.read({"url": _url, "augmentations": _names, "seed": query.whole(0, MAX_SEED), "wait": query.WAIT})
    recipe = Augment(values.get("augmentations", AUGMENTATIONS), values.get("seed", 0))
    return Asked(Source(values["url"]), recipe, values.get("wait", settings.inspect.wait_s))


def from_request(settings: Settings, stream: body_limits.Readable, take: Callable[[int], None]) -> Asked:
    """Read a request that has a URL in its query or in its JSON, or a picture in its body.

    :raises BadRequest: it has none, or more than one, or something of it is not acceptable.
    :raises SourceTooLarge: the picture is. :raises NotAnImage: it is none.
    """
    address, rest = split(_query())
    named = MultiDict(parse_qsl(rest, keep_blank_values=True))
    if address is None and named.get("url") == "":
        raise _no_source("Give the address of a picture.")
    values = query.read(_OWN | ({"url": _url} if address is None else {}), named)
    if address is not None:
        values["url"] = _url(address)
    said, data = _body(settings, stream, take)
    for name in values.keys() & said.keys():
        raise Invalid("The same is said twice.", errors=[FieldError(pointer(name), "given_twice", "Say it in the query or in the body.")])
    values |= said
    if data is not None and "url" in values:
        raise Invalid("One picture at a time.", errors=[FieldError("/url", "given_twice", "There is a picture in the body, too.")])
    if data is None and "url" not in values:
        raise _no_source("Give the address of a picture, or send one.")
    source = Source(values["url"]) if data is None else Source(sha256=hashlib.sha256(data).hexdigest())
    return Asked(source, Describe(_dream(values)), values.get("wait", settings.inspect.wait_s), data)


def split(query: str) -> tuple[str | None, str]:
    """Tell an address that is the query (``/img?<address>``) from parameters that have names.

    An address that is not encoded is taken as it stands, but for parameters of ours at its end.

    :returns: the address, or None; and the part of the query that has names.
    :raises UrlRefused: ``bad_url``; what it encodes is no text.
    """
    steps = query.split("&")
    if not query or _name(steps[0]) in {"url", *_OWN}:
        return None, query
    end = len(steps)
    while _name(steps[end - 1]) in _OWN:  # not the first one, or there would be no address
        end -= 1
    address = "&".join(steps[:end])
    try:
        return (address if _WHOLE.match(address) else unquote(address, errors="strict")), "&".join(steps[end:])
    except UnicodeDecodeError:
        raise UrlRefused("The address is no text in UTF-8.") from None


def _name(step: str) -> str:
    return step.partition("=")[0]


def _query() -> str:
    try:
        return request.query_string.decode()
    except UnicodeDecodeError:
        raise UrlRefused("The address is no text in UTF-8.") from None


def _url(text: str) -> str:
    return str(urls.parse(text))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not set(names) <= set(AUGMENTATIONS):
        raise ValueError(f"Give names with commas between them; known are: {', '.join(AUGMENTATIONS)}.")
    return names


def _effect(text: str) -> str:
    if text != DREAM:
        raise ValueError(f"Give {DREAM}.")
    return text


_OWN: Final[dict[str, Callable[[str], Any]]] = {
    "effect": _effect,
    "layer": query.whole(DREAM_LAYERS[0], DREAM_LAYERS[-1]),
    "strength": query.share,
    "wait": query.WAIT,
}


def _dream(values: dict[str, Any]) -> Dream | None:
    said = {name: values[name] for name in ("layer", "strength") if name in values}
    if "effect" in values:
        return Dream(**said)
    if said:
        raise Invalid("There is no effect to set.", errors=[FieldError(pointer(name), "bad_value", f"It goes with effect={DREAM}.") for name in said])
    return None


def _body(settings: Settings, stream: body_limits.Readable, take: Callable[[int], None]) -> tuple[dict[str, Any], bytes | None]:
    """Read the body: what its JSON says, or the picture that it is or holds."""
    length = request.content_length
    if length is None and not request.environ.get("wsgi.input_terminated"):
        length = 0
    if length == 0:
        return {}, None
    kind, most = request.mimetype, settings.inspect.max_source_bytes
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if kind in {"", "application/json"} or kind.endswith("+json"):
        body = body_limits.read_body(stream, length, encoding, _MAX_JSON_BYTES, take)
        return (_said(load(body, settings.limits)) if body else {}), None
    is_form = kind == "multipart/form-data"
    if not (is_form or kind.startswith("image/") or kind == "application/octet-stream"):
        raise UnsupportedMedia("Send JSON with a url, a form with one file, or the picture itself.", extra={"accepted": _ACCEPTED})
    try:
        body = body_limits.read_body(stream, length, encoding, most + _AROUND_FILE if is_form else most, take)
    except TooLarge:
        raise _too_large(most) from None
    data = _file(body, request.mimetype_params.get("boundary", "")) if is_form else body
    if not data and not is_form:
        return {}, None  # a chunked body may turn out to be none
    if len(data) > most:
        raise _too_large(most)
    if sniff(data[:_HEAD]) is None:
        raise NotAnImage("What was sent is no picture in a format that is read here: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF.")
    return {}, data


def _said(tree: Any) -> dict[str, Any]:
    try:
        said = PictureIn.model_validate(tree).model_dump(exclude_none=True)
    except ValidationError as error:
        raise Invalid("The body has fields that are not acceptable.", errors=field_errors(error)) from None
    return said | {"url": _url(said["url"])}


def _file(body: bytes, boundary: str) -> bytes:
    parts = multipart.take_apart(body, boundary, max_images=1)
    errors = [FieldError(pointer(part.name), "unknown_field", "Options belong into the query.") for part in parts if part.name != "file"]
    files = [part.data for part in parts if part.name == "file"]
    if len(files) != 1:
        errors.append(FieldError("/file", "given_twice" if files else "missing", "Send one file."))
    if errors:
        raise Invalid("The form is one part with the name file.", errors=errors)
    return files[0]


def _no_source(detail: str) -> Invalid:
    return Invalid(detail, code="no_source", errors=[FieldError("/url", "missing", detail)])


def _too_large(limit: int) -> SourceTooLarge:
    return SourceTooLarge(f"The picture is larger than {limit:,} bytes.", extra={"limit": "max_source_bytes", "value": limit})
