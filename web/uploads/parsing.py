"""A body becomes validated images, or a list of everything that is wrong with it.

JSON is parsed once into plain objects, each image is validated alone (so that one bad image can be refused alone), and its
base64 is decoded while the text of the others still waits; nothing is copied that is not needed.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, Final

import orjson
import pybase64
from pydantic import ValidationError
from pydantic_core import from_json

from shared.augmentations import AUGMENTATIONS
from shared.errors import FieldError, Invalid, MalformedJson, TooLarge
from shared.media_types import CONTENT_TYPES, SIGNATURES, sniff
from shared.settings import Limits
from web.http.body_limits import too_many_images
from web.http.multipart import Part
from web.http.problems import MAX_ERRORS, pointer
from web.uploads.schemas import Envelope, ImageIn, ImageMeta, check_extra, kept_extra

_HEAD: Final = 32
_SPACES: Final = " \t\r\n\f\v"
_NO_MARKS: Final = bytes(set(range(256)) - set(b',[{"'))
_WHITE: Final = str.maketrans("", "", _SPACES)
_KINDS: Final = {
    "missing": "missing",
    "string_too_short": "blank",
    "string_too_long": "too_long",
    "too_long": "too_long",
    "extra_forbidden": "unknown_field",
    "bad_timestamp": "bad_timestamp",
    "bad_text": "bad_text",
    "list_type": "wrong_type",
    "greater_than_equal": "bad_value",
    "less_than_equal": "bad_value",
    "literal_error": "bad_value",
}


@dataclass(frozen=True, slots=True)
class Good:
    """An image that may be stored."""

    index: int
    data: bytes
    ext: str
    timestamp: datetime
    store_name: str
    camera_id: str
    barcode: str | None
    filename: str | None
    extra: dict[str, Any]

    @property
    def content_type(self) -> str:
        """Media type, by the file's own signature."""
        return CONTENT_TYPES[self.ext]


@dataclass(slots=True)
class Parsed:
    """A request, understood.

    ``bad`` holds the errors of refused images by index, ``bad_digests`` what they were; empty unless lenient. ``options_wrong`` is empty once all is read: sizes
    are said first.
    """

    total: int
    good: list[Good] = field(default_factory=list)
    bad: dict[int, list[FieldError]] = field(default_factory=dict)
    bad_digests: list[str] = field(default_factory=list)
    options_wrong: list[FieldError] = field(default_factory=list)
    augmentations: tuple[str, ...] | None = None
    detect: bool = True

    def fingerprint(self, digests: list[str], *, lenient: bool) -> str:
        """Digest the request as understood: metadata, options, each image's file; not its bytes on the wire."""
        said = [
            self.total, lenient, self.augmentations, self.detect,
            sorted(self.bad), self.bad_digests,
            [[i.index, i.timestamp, i.store_name, i.camera_id, i.barcode, i.filename, i.extra] for i in self.good],
            digests,
        ]  # fmt: skip
        return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()


def parse_json(tree: Any, limits: Limits, *, lenient: bool) -> Parsed:
    """Read what ``load`` gave; it is taken apart on the way, so that each file's text goes as soon as it is decoded.

    :raises TooLarge: too many images, or too large ones. :raises Invalid: the rest.
    """
    parsed, items, prefix = _envelope(tree, limits)
    return _images(parsed, items, prefix, ImageIn, _from_base64, limits, lenient=lenient)


def parse_multipart(parts: Sequence[Part], limits: Limits, *, lenient: bool) -> Parsed:
    """Read the parts of a form: ``metadata`` as JSON without files, and a ``file`` for each image in order."""
    metadata = [part.data for part in parts if part.name == "metadata"]
    files = [part for part in parts if part.name == "file"]
    tree = load(metadata[0], limits) if metadata else None
    if len(files) > limits.max_images:
        raise too_many_images(limits.max_images)
    if not metadata:
        raise Invalid("The form has no part named metadata.", errors=[FieldError("/metadata", "missing", "Send it as JSON.")])
    parsed, items, prefix = _envelope(tree, limits)
    parsed.options_wrong += _unknown(part.name for part in parts if part.name not in {"metadata", "file"})
    if len(metadata) > 1:
        parsed.options_wrong.append(FieldError("/metadata", "given_twice", "Send one part named metadata."))
    if len(files) != len(items):
        detail = f"There are {len(items)} images in metadata and {len(files)} parts named file."
        parsed.options_wrong.append(FieldError("/file", "count_mismatch", detail))

    def take(index: int, item: dict[str, Any]) -> bytes | FieldError:
        if index >= len(files):
            return FieldError("/file", "missing", "There is no part named file for this image.")
        if "file" in item:
            return FieldError("/file", "unknown_field", "In a form the file is a part of its own.")
        part = files[index]
        if part.filename and item.get("filename") is None:
            item["filename"] = part.filename[-255:]
        return part.data

    return _images(parsed, items, prefix, ImageMeta, take, limits, lenient=lenient)


def load(body: bytes, limits: Limits) -> Any:
    """Parse JSON. The caller keeps no name for ``body``, so that it can go before anything is decoded.

    :raises TooLarge: more values than anyone needs. :raises MalformedJson: it is none.
    """
    _check_values(body, limits.max_values)
    try:
        return from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        where = str(error).rsplit(" at ", 1)[-1] if " at line " in str(error) else "an unknown place"
        raise MalformedJson(f"The body is not JSON (at {where}).") from None


def _check_values(body: bytes, most: int) -> None:
    """Bound the memory that parsing takes: each value follows one of three marks, and base64 has none of them."""
    if sum(map(body.count, (b",", b"[", b"{"))) <= most:  # quick, and nearly always enough
        return
    # Of those within texts it says nothing: outside of them are the marks with an even number of quotes before. What is escaped ends
    # no text, and two quotes side by side change nothing; between those that are left are marks, so so many of them say enough.
    unescaped = body.replace(rb"\\", b"").replace(rb'\"', b"")
    outside = unescaped.translate(None, _NO_MARKS).replace(b'""', b"").split(b'"', 2 * most + 4)[::2]
    if sum(map(len, outside)) > most:
        extra = {"limit": "max_values", "value": most}
        raise TooLarge(f"The JSON of a request may have {most} values.", code="too_many_values", extra=extra)


def _envelope(tree: Any, limits: Limits) -> tuple[Parsed, list[Any], str]:
    prefix = ""
    parsed = Parsed(0)
    items = tree
    if isinstance(tree, dict):
        prefix = "/images"
        items = tree.pop("images", None)
        _options(parsed, tree)
    if not isinstance(items, list):
        raise Invalid("Send a JSON array of images, or an object with images.", errors=[FieldError(prefix, "wrong_type", "This must be an array.")])  # fmt: skip
    _check_count(items, limits)
    if not items:
        parsed.options_wrong.append(FieldError(prefix, "empty", "There are no images in this request."))
    parsed.total = len(items)
    return parsed, items, prefix


def _options(parsed: Parsed, said: dict[str, Any]) -> None:
    """Read what an upload in the object form says beside its images; what is wrong is kept for later."""
    parsed.options_wrong += _unknown(name for name in said if name not in Envelope.model_fields)
    try:
        envelope = Envelope.model_validate({name: said[name] for name in Envelope.model_fields if name in said})
    except ValidationError as error:
        parsed.options_wrong += field_errors(error, "")
        return
    parsed.augmentations = None if envelope.augmentations is None else tuple(dict.fromkeys(envelope.augmentations))
    parsed.detect = envelope.detect
    parsed.options_wrong += [
        FieldError(f"/augmentations/{at}", "unknown_augmentation", f"Known are: {', '.join(AUGMENTATIONS)}.")
        for at, name in enumerate(envelope.augmentations or [])
        if name not in AUGMENTATIONS
    ]


def _unknown(names: Iterable[str]) -> list[FieldError]:
    """Refuse what is asked for and would not be done."""
    return [
        FieldError("/webhook_url", "not_supported", "webhook_url is not part of this version.")
        if name == "webhook_url"
        else FieldError(pointer(name), "unknown_field", "This field is not known.")
        for name in islice(names, MAX_ERRORS)
    ]


def _check_count(items: list[Any], limits: Limits) -> None:
    if len(items) > limits.max_images:
        raise too_many_images(limits.max_images)


def _images(
    parsed: Parsed,
    items: list[Any],
    prefix: str,
    model: type[ImageMeta],
    take: Callable[[int, dict[str, Any]], bytes | FieldError],
    limits: Limits,
    *,
    lenient: bool,
) -> Parsed:
    for index, item in enumerate(items):
        given = item.get("file") if lenient and isinstance(item, dict) else None
        good, errors = _image(index, item, f"{prefix}/{index}", model, take, limits)
        items[index] = None  # with all that it still holds
        if good is not None:
            parsed.good.append(good)
        else:
            parsed.bad[index] = errors
            if lenient:
                parsed.bad_digests.append(_digest(item, given if model is ImageIn else take(index, {})))
    if not lenient or not parsed.good or parsed.options_wrong:
        _refuse(parsed, limits, lenient=lenient)
    return parsed


def _digest(item: Any, file: object) -> str:
    """Digest a refused image, so that another request is told apart from a repetition of this one."""
    digest = hashlib.sha256(json.dumps(item, sort_keys=True).encode())
    if isinstance(file, bytes):
        digest.update(file)
    else:
        digest.update(file.encode("utf-8", "surrogatepass") if isinstance(file, str) else str(file).encode())
    return digest.hexdigest()


def _refuse(parsed: Parsed, limits: Limits, *, lenient: bool) -> None:
    errors = parsed.options_wrong + [error for some in parsed.bad.values() for error in some]
    large = [error for error in errors if error.code == "image_too_large"]
    if large and not lenient:
        extra = {"limit": "max_image_bytes", "value": limits.max_image_bytes}
        detail = f"An image may have {limits.max_image_bytes} bytes."
        raise TooLarge(detail, code="image_too_large", errors=large[:MAX_ERRORS], extra=extra)
    if not errors:
        return
    if any(error.code == "not_supported" for error in parsed.options_wrong):
        raise Invalid("webhook_url is not part of this version.", code="not_supported", errors=errors[:MAX_ERRORS])
    if len(errors) == 1:
        what = errors[0].detail
    elif parsed.options_wrong:
        what = "The request has fields that are not acceptable."
    else:
        what = f"{len(parsed.bad)} of {parsed.total} images are not acceptable."
    raise Invalid(what, errors=errors[:MAX_ERRORS])


def _image(
    index: int,
    item: Any,
    where: str,
    model: type[ImageMeta],
    take: Callable[[int, dict[str, Any]], bytes | FieldError],
    limits: Limits,
) -> tuple[Good | None, list[FieldError]]:
    if not isinstance(item, dict):
        return None, [FieldError(where, "wrong_type", "An image must be an object.")]
    data = take(index, item)
    if isinstance(data, FieldError):
        errors = [FieldError(where + data.pointer, data.code, data.detail)]
        ext = ""
    else:
        ext, problem = _signature(data, limits)
        errors = [] if problem is None else [FieldError(f"{where}/file", *problem)]
    try:
        meta = model.model_validate(item)
    except ValidationError as error:
        meta = None
        errors += field_errors(error, where)
    extra = kept_extra(item)
    wrong = check_extra(extra)
    if wrong is not None:
        errors.append(FieldError(f"{where}/extra", *wrong))
    if errors or meta is None or isinstance(data, FieldError):
        return None, errors
    return Good(index, data, ext, meta.timestamp, meta.store_name, meta.camera_id, meta.barcode or None, meta.filename or None, extra), []  # fmt: skip


def _from_base64(_index: int, item: dict[str, Any]) -> bytes | FieldError:
    text = item.get("file")
    if not isinstance(text, str):
        return FieldError("/file", "missing" if text is None else "wrong_type", "Give the file as base64 text.")
    item["file"] = ""
    bad = FieldError("/file", "bad_base64", "This is not base64 in the standard alphabet.")
    if text[:_HEAD].lstrip(_SPACES)[:5].lower() == "data:":
        _, comma, text = text.partition(",")
        if not comma:
            return bad
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        pass
    bare = text.translate(_WHITE) if text.isascii() else text
    if len(bare) == len(text):
        return bad
    try:
        return pybase64.b64decode(bare, validate=True)
    except ValueError:
        return bad


def _signature(data: bytes, limits: Limits) -> tuple[str, tuple[str, str] | None]:
    if not data:
        return "", ("empty_file", "The file is empty.")
    if len(data) > limits.max_image_bytes:
        return "", ("image_too_large", f"An image may have {limits.max_image_bytes} bytes, this has {len(data)}.")
    kind = sniff(data[:_HEAD])
    if kind is None:
        return "", ("unsupported_format", f"The file is none of: {', '.join(SIGNATURES)}.")
    return SIGNATURES[kind], None


def field_errors(error: ValidationError, within: str = "") -> list[FieldError]:
    """Give what a model finds wrong; ``within`` is where in the body it was looking."""
    found = []
    for wrong in error.errors(include_url=False, include_context=False, include_input=False):
        where = "".join(pointer(str(part)) for part in wrong["loc"])
        if where == "/file" and within:
            continue  # said already, by who decodes it
        found.append(FieldError(within + where, _KINDS.get(wrong["type"], "wrong_type"), wrong["msg"]))
    return found

