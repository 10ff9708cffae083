"""The outer form of an upload's JSON: an array of images, or an object with images and options."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from pydantic import ValidationError

from shared.augmentations import AUGMENTATIONS
from shared.errors import FieldError, Invalid
from shared.settings import Limits
from web.http.body_limits import too_many_images
from web.http.field_errors import field_errors
from web.http.problems import MAX_ERRORS, pointer
from web.uploads.parsed_upload import ParsedUpload
from web.uploads.schemas import Envelope


def parse_envelope(tree: Any, limits: Limits) -> tuple[ParsedUpload, list[Any], str]:
    """Read everything but the images themselves.

    :returns: the upload, still without images; the images' JSON; the JSON Pointer of that array.
    :raises Invalid: there is no array of images. :raises TooLarge: ``too_many_images``.
    """
    prefix = ""
    upload = ParsedUpload(0)
    items = tree
    if isinstance(tree, dict):
        prefix = "/images"
        items = tree.pop("images", None)
        _read_options(upload, tree)
    if not isinstance(items, list):
        error = FieldError(prefix, "wrong_type", "This must be an array.")
        raise Invalid("Send a JSON array of images, or an object with images.", errors=[error])
    if len(items) > limits.max_images:
        raise too_many_images(limits.max_images)
    if not items:
        upload.option_errors.append(FieldError(prefix, "empty", "The request contains no images; send at least one."))
    upload.total = len(items)
    return upload, items, prefix


def unknown_fields(names: Iterable[str]) -> list[FieldError]:
    """Return an error for each field that the service does not know: an option without effect is refused."""
    return [
        FieldError("/webhook_url", "not_supported", "webhook_url is not part of this version.")
        if name == "webhook_url"
        else FieldError(pointer(name), "unknown_field", "This field is not known.")
        for name in islice(names, MAX_ERRORS)
    ]


def _read_options(upload: ParsedUpload, options: dict[str, Any]) -> None:
    upload.option_errors += unknown_fields(name for name in options if name not in Envelope.model_fields)
    try:
        envelope = Envelope.model_validate({name: options[name] for name in Envelope.model_fields if name in options})
    except ValidationError as error:
        upload.option_errors += field_errors(error)
        return
    upload.augmentations = None if envelope.augmentations is None else tuple(dict.fromkeys(envelope.augmentations))
    upload.detect = envelope.detect
    upload.option_errors += [
        FieldError(f"/augmentations/{index}", "unknown_augmentation", f"Known are: {', '.join(AUGMENTATIONS)}.")
        for index, name in enumerate(envelope.augmentations or [])
        if name not in AUGMENTATIONS
    ]
