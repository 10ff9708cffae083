"""Parse the two encodings of an upload, JSON and a form, into a ``ParsedUpload``."""

from collections.abc import Sequence
from typing import Any

from shared.errors import FieldError, Invalid
from shared.settings import Limits
from web.http.body_limits import too_many_images
from web.http.json_body import parse_json
from web.http.multipart import Part
from web.uploads.envelope import parse_envelope, unknown_fields
from web.uploads.images import file_from_base64, parse_images
from web.uploads.parsed_upload import ParsedUpload
from web.uploads.schemas import ImageIn, ImageMeta


def parse_json_upload(tree: Any, limits: Limits, *, lenient: bool) -> ParsedUpload:
    """Read what ``parse_json`` returned, and remove its parts on the way: each file's text is freed once it is decoded.

    :raises TooLarge: too many images, or too large ones. :raises Invalid: anything else.
    """
    upload, items, prefix = parse_envelope(tree, limits)
    return parse_images(upload, items, prefix, ImageIn, file_from_base64, limits, lenient=lenient)


def parse_form_upload(parts: Sequence[Part], limits: Limits, *, lenient: bool) -> ParsedUpload:
    """Read the parts of a form: ``metadata`` as JSON without files, and a ``file`` for each image in order.

    :raises MalformedJson: ``metadata`` is not JSON.
    :raises TooLarge: too many images or values, or too large images. :raises Invalid: anything else.
    """
    metadata = [part.data for part in parts if part.name == "metadata"]
    files = [part for part in parts if part.name == "file"]
    tree = parse_json(metadata[0], limits.max_values) if metadata else None
    if len(files) > limits.max_images:
        raise too_many_images(limits.max_images)
    if not metadata:
        raise Invalid(
            "The form has no part named metadata.", errors=[FieldError("/metadata", "missing", "Send it as JSON.")]
        )
    upload, items, prefix = parse_envelope(tree, limits)
    upload.option_errors += unknown_fields(part.name for part in parts if part.name not in {"metadata", "file"})
    if len(metadata) > 1:
        upload.option_errors.append(FieldError("/metadata", "given_twice", "Send one part named metadata."))
    if len(files) != len(items):
        detail = f"There are {len(items)} images in metadata and {len(files)} parts named file."
        upload.option_errors.append(FieldError("/file", "count_mismatch", detail))

    def file_from_part(index: int, item: dict[str, Any]) -> bytes | FieldError:
        if index >= len(files):
            return FieldError("/file", "missing", "There is no part named file for this image.")
        if "file" in item:
            return FieldError("/file", "unknown_field", "In a form the file is a part of its own.")
        part = files[index]
        if part.filename and item.get("filename") is None:
            item["filename"] = part.filename[-255:]
        return part.data

    return parse_images(upload, items, prefix, ImageMeta, file_from_part, limits, lenient=lenient)
