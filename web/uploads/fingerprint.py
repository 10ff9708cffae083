"""Digests that tell whether two uploads with the same Idempotency-Key are the same request."""

import hashlib
import json
from typing import Any

import orjson

from web.uploads.parsed_upload import ParsedUpload


def request_fingerprint(upload: ParsedUpload, digests: list[str], *, lenient: bool) -> str:
    """Digest an upload after parsing: metadata, options and each image's file; not how the body was encoded.

    :param digests: sha256 of each of ``upload.images``.
    """
    fingerprint = [
        upload.total, lenient, upload.augmentations, upload.detect,
        sorted(upload.rejected), upload.rejected_digests,
        [[i.index, i.timestamp, i.store_name, i.camera_id, i.barcode, i.filename, i.extra] for i in upload.images],
        digests,
    ]  # fmt: skip
    return hashlib.sha256(orjson.dumps(fingerprint, option=orjson.OPT_SORT_KEYS)).hexdigest()


def rejected_image_digest(item: Any, file: object) -> str:
    """Digest a rejected image: a request with another image in its place is another request.

    :param item: the image's JSON without its file.
    :param file: its bytes, its base64 text, or whatever the client sent instead.
    """
    digest = hashlib.sha256(json.dumps(item, sort_keys=True).encode())
    if isinstance(file, bytes):
        digest.update(file)
    else:
        digest.update(file.encode("utf-8", "surrogatepass") if isinstance(file, str) else str(file).encode())
    return digest.hexdigest()
