"""Parse the outer level of the JSON in an upload, which is an array of images, or an object with images and options."""

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from pydantic import ValidationError

from shared.augmentations import AUGMENTATIONS
from shared.errors import FieldError, Invalid
from web.http.body_limits import too_many_images
from web.http.field_errors import field_errors
from web.http.problems import MAX_ERRORS, pointer
from web.uploads.parsed_upload import ParsedUpload
from web.uploads.rules import UploadRules
from web.uploads.schemas import Envelope

_NOT_SUPPORTED: Final = frozenset({"webhook_url"})
"""Options that later versions support. Until then, they are refused with a code of their own."""
_ONLY_OF_BATCHES: Final = frozenset({"priority"})
"""Options that would have no effect outside of the object with ``images``, and are refused there with the same code."""


def parse_envelope(tree: Any, rules: UploadRules) -> tuple[ParsedUpload, list[Any], str]:
    """Parse everything in the JSON of an upload except the images.

    :returns: the upload, which does not contain images yet; the array with the JSON of the images; and the JSON Pointer of
        this array.
    :raises Invalid: when the JSON has no array of images or, with ``rules.is_single``, is no object.
    :raises TooLarge: when the array has too many images (``too_many_images``).
    """
    if rules.is_single:
        return _parse_single(tree), [tree], ""
    prefix = ""
    upload = ParsedUpload(0)
    items = tree
    if isinstance(tree, dict):
        prefix = "/images"
        items = tree.pop("images", None)
        _read_options(upload, tree)
    if not isinstance(items, list):
        error = FieldError(prefix, "wrong_type", "This value is not an array; send an array of images.")
        raise Invalid(
            "The request has no array of images; send a JSON array, or an object with `images`.", errors=[error]
        )
    if len(items) > rules.limits.max_images:
        raise too_many_images(rules.limits.max_images)
    if not items:
        upload.option_errors.append(FieldError(prefix, "empty", "The request contains no images; send at least one."))
    upload.total = len(items)
    return upload, items, prefix


def _parse_single(tree: Any) -> ParsedUpload:
    if not isinstance(tree, dict):
        error = FieldError("", "wrong_type", "This value is not an object; send one image as a JSON object.")
        raise Invalid("The request is not a JSON object; send one image.", errors=[error])
    return ParsedUpload(1, option_errors=misplaced_options(tree))


def unknown_fields(names: Iterable[str]) -> list[FieldError]:
    """Return an error for each field in ``names``. The service does not know these fields and would otherwise ignore them."""
    return [
        FieldError(pointer(name), "not_supported", f"This version does not support `{name}`; omit it.")
        if name in _NOT_SUPPORTED
        else FieldError(pointer(name), "unknown_field", "This field is unknown; omit it.")
        for name in islice(names, MAX_ERRORS)
    ]


def misplaced_options(names: Iterable[str]) -> list[FieldError]:
    """Return an error for each of ``names`` that would be ignored outside of the object with ``images`` (``not_supported``)."""
    found = [name for name in names if name in _NOT_SUPPORTED | _ONLY_OF_BATCHES]
    misplaced = "`{}` has no effect here; send it beside `images` in the JSON object of an upload to /upload_image_batch."
    return unknown_fields(name for name in found if name in _NOT_SUPPORTED) + [
        FieldError(pointer(name), "not_supported", misplaced.format(name)) for name in found if name in _ONLY_OF_BATCHES
    ]


def unknown_parts(names: Iterable[str]) -> list[FieldError]:
    """Return an error for each of the parts of a form that are neither its metadata nor a file."""
    return [error for name in islice(names, MAX_ERRORS) for error in misplaced_options([name]) or unknown_fields([name])]


def _read_options(upload: ParsedUpload, options: dict[str, Any]) -> None:
    upload.option_errors += unknown_fields(name for name in options if name not in Envelope.model_fields)
    try:
        envelope = Envelope.model_validate({name: options[name] for name in Envelope.model_fields if name in options})
    except ValidationError as error:
        upload.option_errors += field_errors(error)
        return
    upload.augmentations = None if envelope.augmentations is None else tuple(dict.fromkeys(envelope.augmentations))
    upload.detect, upload.priority = envelope.detect, envelope.priority
    upload.option_errors += [
        FieldError(
            f"/augmentations/{index}",
            "unknown_augmentation",
            f"This augmentation is unknown. Valid names: {', '.join(AUGMENTATIONS)}.",
        )
        for index, name in enumerate(envelope.augmentations or [])
        if name not in AUGMENTATIONS
    ]
