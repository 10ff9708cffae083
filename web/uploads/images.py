"""Validate the images of an upload.

Each image is validated separately, so that an invalid image can be rejected without rejecting the others. The files are
decoded one after the other, and no bytes are copied unnecessarily, so that the validation needs little memory.
"""

from collections.abc import Callable
from typing import Any, Final

import pybase64
from pydantic import ValidationError

from shared.errors import FieldError, Invalid, TooLarge
from shared.media_types import SIGNATURES, sniff
from shared.settings import Limits
from web.http.field_errors import field_errors
from web.http.problems import MAX_ERRORS
from web.image_fields import check_extra
from web.uploads.digests import FileDigests
from web.uploads.fingerprint import rejected_image_digest
from web.uploads.foreign_stores import find_foreign_store, refuse_foreign_stores
from web.uploads.parsed_upload import ParsedUpload, ValidImage
from web.uploads.rules import UploadRules
from web.uploads.schemas import ImageIn, ImageMeta, extra_fields

_WHITESPACE: Final = " \t\r\n\f\v"
_WITHOUT_WHITESPACE: Final = str.maketrans("", "", _WHITESPACE)

ReadFile = Callable[[int, dict[str, Any]], bytes | FieldError]
"""A function that returns the file of an image.

The arguments are the index and the JSON of the image. If the file is missing or invalid, the function returns an error
whose pointer is relative to the image.
"""


def parse_images(
    upload: ParsedUpload,
    items: list[Any],
    prefix: str,
    model: type[ImageMeta],
    read_file: ReadFile,
    digests: FileDigests,
    rules: UploadRules,
) -> ParsedUpload:
    """Validate every image in ``items``, and return ``upload`` after adding the results to it.

    The results are the valid images, and the errors of the invalid images.

    :param items: the JSON of the images. Each entry is replaced with None when it has been read, which frees the text of
        its file.
    :param prefix: the JSON Pointer of ``items``.
    :param digests: computes the digests of the files whose images have the field ``sha256``, unless it already has.
    :raises Forbidden: when an image belongs to a store that is not in ``rules.stores``, and ``rules`` are not lenient
        (``foreign_store``).
    :raises TooLarge: when an image has too many bytes and ``rules`` are not lenient (``image_too_large``).
    :raises Invalid: when an image is invalid and ``rules`` are not lenient, when no image is valid, or when ``upload``
        has option errors.
    """
    for index, item in enumerate(items):
        text = item.get("file") if rules.lenient and isinstance(item, dict) else None
        image, errors = _parse_image(index, item, rules.image_pointer(prefix, index), model, read_file, digests, rules)
        items[index] = None
        if image is not None:
            upload.images.append(image)
        else:
            upload.rejected[index] = errors
            if rules.lenient:
                file = text if model is ImageIn else read_file(index, {})
                upload.rejected_digests.append(rejected_image_digest(item, file))
    if not rules.lenient or not upload.images or upload.option_errors:
        _raise_errors(upload, rules)
    return upload


def file_from_base64(_index: int, item: dict[str, Any]) -> bytes | FieldError:
    """Return the decoded ``file`` field of an image, and set the field to an empty string to free its text.

    This function can be passed to ``parse_images`` as ``read_file``.
    """
    text = item.get("file")
    if not isinstance(text, str):
        return FieldError("/file", "missing" if text is None else "wrong_type", "The file is missing or is not a string; send it as base64 text.")
    item["file"] = ""
    invalid = FieldError("/file", "bad_base64", "The file is not valid base64; use the standard alphabet, and padding.")
    text = text.lstrip(_WHITESPACE)
    if text[:5].lower() == "data:":
        _, comma, text = text.partition(",")
        if not comma:
            return invalid
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        pass
    compact = text.translate(_WITHOUT_WHITESPACE) if text.isascii() else text
    if len(compact) == len(text):
        return invalid
    try:
        return pybase64.b64decode(compact, validate=True)
    except ValueError:
        return invalid


def _parse_image(
    index: int,
    item: Any,
    prefix: str,
    model: type[ImageMeta],
    read_file: ReadFile,
    digests: FileDigests,
    rules: UploadRules,
) -> tuple[ValidImage | None, list[FieldError]]:
    if not isinstance(item, dict):
        return None, [FieldError(prefix, "wrong_type", "The image is not an object; send a JSON object.")]
    data = read_file(index, item)
    if isinstance(data, FieldError):
        errors = [FieldError(prefix + data.pointer, data.code, data.detail)]
        ext = ""
    else:
        ext, problem = _check_file(data, rules.limits)
        errors = [] if problem is None else [FieldError(f"{prefix}/file", *problem)]
    if rules.stores is not None:
        foreign = find_foreign_store(item, prefix, rules.stores)
        errors += [foreign] if foreign is not None else []
    try:
        meta = model.model_validate(item)
    except ValidationError as error:
        meta = None
        errors += field_errors(error, prefix, skip=("/file",))  # read_file has already reported errors of the file
    # The field is removed, because it is not part of the request that an Idempotency-Key identifies. The file is.
    sha256 = item.pop("sha256", None)
    if isinstance(data, bytes) and isinstance(sha256, str) and all(error.pointer != f"{prefix}/sha256" for error in errors):
        errors += _compare_digest(data, sha256, f"{prefix}/sha256", digests)
    extra = extra_fields(item)
    extra_problem = check_extra(extra)
    if extra_problem is not None:
        errors.append(FieldError(f"{prefix}/extra", *extra_problem))
    if errors or meta is None or isinstance(data, FieldError):
        return None, errors
    image = ValidImage(
        index,
        data,
        ext,
        meta.timestamp,
        meta.store_name,
        meta.camera_id,
        meta.barcode or None,
        meta.filename or None,
        extra,
    )
    return image, []


def _check_file(data: bytes, limits: Limits) -> tuple[str, tuple[str, str] | None]:
    """Check the size and the signature of a file.

    :returns: two values. For a valid file, they are the file extension for its signature, and None. For an invalid
        file, they are an empty string, and a tuple with the error code and a sentence for the client.
    """
    if not data:
        return "", ("empty_file", "The file is empty; send the bytes of an image.")
    if len(data) > limits.max_image_bytes:
        return "", (
            "image_too_large",
            f"The image has {len(data)} bytes; send at most {limits.max_image_bytes} bytes for each image.",
        )
    signature = sniff(data)
    if signature is None:
        return "", ("unsupported_format", f"The format is not supported; send one of: {', '.join(SIGNATURES)}.")
    return SIGNATURES[signature], None


def _compare_digest(data: bytes, expected: str, pointer: str, digests: FileDigests) -> list[FieldError]:
    """Return an error with this pointer if the digest of a file is not the expected one, which is in hexadecimal."""
    (digest,) = digests.compute([data])
    if digest == expected.lower():
        return []
    detail = f"The file has the SHA-256 digest {digest}, so it was changed on its way, or this digest is that of another file; send the image again."
    return [FieldError(pointer, "digest_mismatch", detail)]


def _raise_errors(upload: ParsedUpload, rules: UploadRules) -> None:
    errors = upload.option_errors + [error for image_errors in upload.rejected.values() for error in image_errors]
    if not rules.lenient:
        refuse_foreign_stores(errors, upload.total)
    too_large = [error for error in errors if error.code == "image_too_large"]
    if too_large and not rules.lenient:
        limit = rules.limits.max_image_bytes
        extra = {"limit": "max_image_bytes", "value": limit}
        detail = f"At least one image is too large; send at most {limit} bytes for each image."
        raise TooLarge(detail, code="image_too_large", errors=too_large[:MAX_ERRORS], extra=extra)
    if not errors:
        return
    unsupported = next((error for error in upload.option_errors if error.code == "not_supported"), None)
    if unsupported is not None:
        raise Invalid(unsupported.detail, code="not_supported", errors=errors[:MAX_ERRORS])
    code = "digest_mismatch" if all(error.code == "digest_mismatch" for error in errors) else None
    if len(errors) == 1:
        detail = errors[0].detail
    elif upload.option_errors or upload.total == 1:
        detail = "The request has invalid fields; see the `errors` field."
    else:
        detail = f"{len(upload.rejected)} of {upload.total} images are invalid; see the `errors` field."
    raise Invalid(detail, code=code, errors=errors[:MAX_ERRORS])
