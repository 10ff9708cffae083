"""Serve the files of a batch: the unchanged originals, and the variants that were made from them.

A file server in front of the service may itself serve the files of images in state ``done`` (see
``shared/storage/blob_keys.py``).
"""

import io
import re
from typing import BinaryIO, Final

from flask import Blueprint, Response

from shared.augmentations import AUGMENTATIONS
from shared.errors import NotFound
from shared.ids import IMAGE_ID_PATTERN, batch_of, is_image_id
from shared.ledger import queries
from shared.media_types import CONTENT_TYPES
from shared.states import TERMINAL, ImageState
from shared.storage.blob_keys import original_key, spool_key, variant_key
from shared.storage.blobs import BlobMissing, BlobStat
from shared.storage.mongo import Document
from shared.variants import BOXES, RENDITION, THUMB
from web.http import access_rules
from web.http.authentication import current_principal
from web.http.file_response import file_response
from web.services import Services, current_services

blueprint = Blueprint("files", __name__)
_NAME: Final = re.compile(rf"({IMAGE_ID_PATTERN})\.([a-z]{{3,4}})\Z")
_IMMUTABLE: Final = "private, max-age=31536000, immutable"
_REVALIDATE: Final = "private, no-cache"
_PENDING_RETRY_S: Final = 2


@blueprint.get("/uploads/<name>")
@access_rules.requires("images:read", or_signature=True)
def original(name: str) -> Response:
    """Return the original or the rendition of an image, depending on the extension in ``name``.

    With the extension of the original's format, return the original. With ``.jpg``, return the original if it is a JPEG,
    and otherwise the rendition, which is a JPEG copy of the image.
    """
    match = _NAME.match(name)
    if match is None:
        raise NotFound("This file does not exist; check the URL.")
    image_id, extension = match[1], match[2]
    services = current_services()
    image = queries.get_image(services.db, image_id, current_principal().stores)
    original_extension = image["work"]["ext"]
    if extension == original_extension:
        response = file_response(*_open_original(services, image), _IMMUTABLE, CONTENT_TYPES[original_extension])
        if image["status"] == ImageState.FAILED:  # a browser must not display a file that could not be processed
            response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return response
    if extension != "jpg":
        raise NotFound("This file does not exist; check the URL.")
    _require_done(image)
    return _serve_variant(services, image, RENDITION, _IMMUTABLE)


@blueprint.get("/uploads/<image_id>/<variant>.jpg")
@access_rules.requires("images:read", or_signature=True)
def variant(image_id: str, variant: str) -> Response:
    """Return a variant of an image: ``thumb``, ``boxes``, or the augmentation with the given name."""
    if not is_image_id(image_id) or variant not in {THUMB, BOXES, *AUGMENTATIONS}:
        raise NotFound("This file does not exist; check the URL.")
    services = current_services()
    image = queries.get_image(services.db, image_id, current_principal().stores)
    is_open = ImageState(image["status"]) not in TERMINAL
    augmentations = image["work"]["augmentations"] if is_open else [made["name"] for made in image["augmentations"]]
    is_unknown = variant in AUGMENTATIONS and variant not in augmentations
    if not (is_open and is_unknown):
        _require_done(image)
    if is_unknown:
        raise NotFound("This augmentation does not exist, because the upload did not request it.")
    return _serve_variant(services, image, variant, _IMMUTABLE if variant == THUMB else _REVALIDATE)


def _require_done(image: Document) -> None:
    status = ImageState(image["status"])
    if status not in TERMINAL:
        raise NotFound("This image has not been processed yet; retry later.", code="image_pending", retry_after=_PENDING_RETRY_S)
    if status != ImageState.DONE:
        raise NotFound("This image could not be processed. To download its original, end the URL with the extension of its format, for example `.png`.", code="image_failed")


def _open_original(services: Services, image: Document) -> tuple[BinaryIO, BlobStat]:
    """Open the original of an image.

    Until a worker has stored the original as a separate file, its bytes are read from the spool of the upload (one file
    with all images of the upload). ETag and Last-Modified depend on the modification time of the file that is read, and
    the spool is older than the separate file. So both headers change once, when the separate file is stored, although
    the bytes of the image stay the same.
    """
    key = original_key(image["_id"], image["work"]["ext"])
    try:
        return services.blobs.open(key)
    except BlobMissing:
        pass
    spool = spool_key(batch_of(image["_id"]))
    try:
        data = services.blobs.read(spool, image["work"]["offset"], image["file_size"])
        found = services.blobs.stat(spool)  # a spool is written only once, so this modification time is valid for the bytes read above
        if found is None:
            raise BlobMissing(spool)
    except BlobMissing:
        services.identity.check()  # raises StoreAway if the whole blob store is missing, not only this file
        if ImageState(image["status"]) in TERMINAL:
            raise NotFound("The stored bytes of this image are missing; upload the image again.") from None
        raise NotFound("This file is not available yet; retry later.", code="image_pending", retry_after=_PENDING_RETRY_S) from None
    return io.BytesIO(data), BlobStat(key, len(data), found.modified)


def _serve_variant(services: Services, image: Document, name: str, cache: str) -> Response:
    try:
        opened = services.blobs.open(variant_key(image["_id"], image["work"]["fence"], name))
    except BlobMissing:
        services.identity.check()  # raises StoreAway if the whole blob store is missing, not only this file
        raise NotFound("This file does not exist; check the URL.") from None
    return file_response(*opened, cache, "image/jpeg")
