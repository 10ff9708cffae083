"""Compute digests that show whether two uploads with the same Idempotency-Key are the same request."""

import hashlib
import json
from typing import Any

import orjson

from shared.priorities import NORMAL
from web.uploads.parsed_upload import ParsedUpload


def request_fingerprint(upload: ParsedUpload, digests: list[str], *, lenient: bool) -> str:
    """Return a digest of a parsed upload.

    The digest covers the options of the upload, and the metadata and the file of each image. It does not depend on the
    encoding of the body.

    :param digests: the SHA-256 digest of each image in ``upload.images``, in the same order.
    """
    fingerprint: list[Any] = [
        upload.total, lenient, upload.augmentations, upload.detect,
        sorted(upload.rejected), upload.rejected_digests,
        [[i.index, i.timestamp, i.store_name, i.camera_id, i.barcode, i.filename, i.extra] for i in upload.images],
        digests,
    ]  # fmt: skip
    if upload.priority != NORMAL:  # otherwise, the digest is that of versions before priorities, which stored it with its key
        fingerprint.append(upload.priority)
    return hashlib.sha256(orjson.dumps(fingerprint, option=orjson.OPT_SORT_KEYS)).hexdigest()


def rejected_image_digest(item: Any, file: object) -> str:
    """Return a digest of a rejected image.

    The fingerprint of the request includes this digest, because a request with a different image at the same index is a
    different request.

    :param item: the JSON of the image without its file.
    :param file: the bytes or the base64 text of the file, or any other value that the client sent in its place.
    """
    digest = hashlib.sha256(json.dumps(item, sort_keys=True).encode())
    if isinstance(file, bytes):
        digest.update(file)
    else:
        digest.update(file.encode("utf-8", "surrogatepass") if isinstance(file, str) else str(file).encode())
    return digest.hexdigest()
