"""Parse an upload, which is encoded as JSON or as a form, into a ``ParsedUpload``."""

from collections.abc import Sequence
from typing import Any

from shared.errors import FieldError, Invalid, ShelfsightError
from web.http.body_limits import too_many_images
from web.http.json_body import parse_json
from web.http.multipart import Part
from web.uploads.digests import FileDigests
from web.uploads.embedded_files import DetachedFiles, detach_files
from web.uploads.envelope import parse_envelope, unknown_parts
from web.uploads.images import file_from_base64, parse_images
from web.uploads.parsed_upload import ParsedUpload
from web.uploads.rules import UploadRules
from web.uploads.schemas import ImageIn, ImageMeta


def parse_json_upload(body: bytes, rules: UploadRules, digests: FileDigests) -> ParsedUpload:
    """Parse an upload that is encoded as JSON.

    The caller should not keep a reference to ``body``, so that its memory can be freed before the files are decoded.

    :param digests: receives the files that are decoded before the JSON is parsed.
    :raises MalformedJson: when ``body`` is not valid JSON.
    :raises Forbidden: when an image belongs to a foreign store.
    :raises TooLarge: when the upload has too many images or JSON values, or an image has too many bytes.
    :raises Invalid: when the upload has any other error.
    """
    detached = detach_files(body, rules.limits.max_images, digests.add)
    if detached is not None:
        upload = _parse_detached(detached, rules, digests)
        if upload is not None:
            return upload
        del detached
    digests.clear()  # frees the files, which are decoded once more
    tree = parse_json(body, rules.limits.max_values)
    del body
    upload, items, prefix = parse_envelope(tree, rules)
    del tree
    return parse_images(upload, items, prefix, ImageIn, file_from_base64, digests, rules)


def _parse_detached(detached: DetachedFiles, rules: UploadRules, digests: FileDigests) -> ParsedUpload | None:
    """Parse an upload whose files were detached. If it has any error, return None, because only the whole body shows it."""
    files = detached.files

    def read_file(index: int, item: dict[str, Any]) -> bytes | FieldError:
        text = item.get("file")
        data = files.pop(text, None) if isinstance(text, str) else None
        if data is None:
            return file_from_base64(index, item)
        item["file"] = ""
        return data

    try:
        upload, items, prefix = parse_envelope(parse_json(detached.json, rules.limits.max_values), rules)
        parse_images(upload, items, prefix, ImageIn, read_file, digests, rules)
    except ShelfsightError:
        return None
    return None if files or upload.rejected else upload


def parse_form_upload(parts: Sequence[Part], rules: UploadRules, digests: FileDigests) -> ParsedUpload:
    """Parse an upload that is encoded as a form.

    :param parts: the parts of the form: one part ``metadata``, which contains JSON without files, and one part ``file``
        for each image, in the order of the images in ``metadata``.
    :param digests: receives the files.
    :raises MalformedJson: when ``metadata`` is not valid JSON.
    :raises Forbidden: when an image belongs to a foreign store.
    :raises TooLarge: when the upload has too many images or JSON values, or an image has too many bytes.
    :raises Invalid: when the upload has any other error.
    """
    metadata = [part.data for part in parts if part.name == "metadata"]
    files = [part for part in parts if part.name == "file"]
    tree = parse_json(metadata[0], rules.limits.max_values) if metadata else None
    if len(files) > rules.limits.max_images:
        raise too_many_images(rules.limits.max_images)
    for part in files:
        digests.add(part.data)
    if not metadata:
        raise Invalid(
            "The form has no part named `metadata`; add it.",
            errors=[
                FieldError("/metadata", "missing", "This part is missing; send the metadata of the images as JSON.")
            ],
        )
    upload, items, prefix = parse_envelope(tree, rules)
    upload.option_errors += unknown_parts(part.name for part in parts if part.name not in {"metadata", "file"})
    if len(metadata) > 1:
        upload.option_errors.append(FieldError("/metadata", "given_twice", "This part is repeated; send only one."))
    if len(files) != len(items):
        detail = f"The form has {len(items)} images in `metadata` and {len(files)} parts named `file`; send one part per image."
        upload.option_errors.append(FieldError("/file", "count_mismatch", detail))

    def file_from_part(index: int, item: dict[str, Any]) -> bytes | FieldError:
        if index >= len(files):
            return FieldError("/file", "missing", "The form has no part named `file` for this image; add it.")
        if "file" in item:
            return FieldError(
                "/file", "unknown_field", "In a form, an image in `metadata` must not have the field `file`; send the file as a part named `file`."
            )
        part = files[index]
        if part.filename and item.get("filename") is None:
            item["filename"] = part.filename[-255:]
        return part.data

    return parse_images(upload, items, prefix, ImageMeta, file_from_part, digests, rules)
