"""Serve the files of a batch: the unchanged originals, and the variants that were made from them.

A file server in front of the service may itself serve the files of images with a successful result (see
``shared/storage/blob_keys.py``).
"""

import io
import re
from contextlib import suppress
from typing import BinaryIO, Final

from flask import Blueprint, Response

from shared.augmentations import AUGMENTATIONS
from shared.errors import NotFound
from shared.ids import IMAGE_ID_PATTERN, batch_of, is_image_id
from shared.ledger import queries
from shared.ledger.shown_results import last_outcome, shown_fence
from shared.media_types import CONTENT_TYPES
from shared.states import ImageState
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
_RESULTS: Final = 3
"""Number of results of an image that are tried, because an older one can be replaced and deleted while it is opened."""
_NOT_REQUESTED: Final = "This augmentation does not exist, because nobody has requested it for this image."
_NOT_MADE_YET: Final = "This augmentation does not exist yet. The image is being processed again, and the new result will have it."


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
        if last_outcome(image) == ImageState.FAILED:  # a browser must not display a file that could not be processed
            response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return response
    if extension != "jpg":
        raise NotFound("This file does not exist; check the URL.")
    fence = shown_fence(image)
    if fence is None:
        raise _without_result(image)
    return _serve_variant(services, image, fence, RENDITION, _IMMUTABLE)


@blueprint.get("/uploads/<image_id>/<variant>.jpg")
@access_rules.requires("images:read", or_signature=True)
def variant(image_id: str, variant: str) -> Response:
    """Return a variant of an image: ``thumb``, ``boxes``, or the augmentation with the given name."""
    if not is_image_id(image_id) or variant not in {THUMB, BOXES, *AUGMENTATIONS}:
        raise NotFound("This file does not exist; check the URL.")
    services = current_services()
    image = queries.get_image(services.db, image_id, current_principal().stores)
    fence, is_augmentation = shown_fence(image), variant in AUGMENTATIONS
    is_requested = variant in image["work"]["augmentations"]
    if fence is None:
        if is_augmentation and not is_requested and last_outcome(image) is None:
            raise NotFound(_NOT_REQUESTED)
        raise _without_result(image)
    if is_augmentation and all(made["name"] != variant for made in image["augmentations"]):
        raise NotFound(_NOT_MADE_YET if is_requested else _NOT_REQUESTED)
    return _serve_variant(services, image, fence, variant, _IMMUTABLE if variant == THUMB else _REVALIDATE)


def _without_result(image: Document) -> NotFound:
    """Return the error for a file of an image that has no successful result. It is pending only until the image ends for the first time."""
    outcome = last_outcome(image)
    if outcome is None:
        return NotFound("This image has not been processed yet; retry later.", code="image_pending", retry_after=_PENDING_RETRY_S)
    original = f"Its original is at /uploads/{image['_id']}.{image['work']['ext']}."
    if outcome == ImageState.FAILED:
        return NotFound(f"This image could not be processed. {original}", code="image_failed")
    return NotFound(f"The processing of this image was cancelled. {original}", code="image_cancelled")


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
        with suppress(BlobMissing):  # the separate file may have been stored, and the spool deleted, since the first attempt
            return services.blobs.open(key)
        services.identity.check()  # raises StoreAway if the whole blob store is missing, not only this file
        if last_outcome(image) is not None:
            raise NotFound("The stored bytes of this image are missing; upload the image again.") from None
        raise NotFound("This file is not available yet; retry later.", code="image_pending", retry_after=_PENDING_RETRY_S) from None
    return io.BytesIO(data), BlobStat(key, len(data), found.modified)


def _serve_variant(services: Services, image: Document, fence: int, name: str, cache: str) -> Response:
    """Serve a file of the result that is shown. If it was replaced and deleted since the image was read, serve that of the newer one."""
    for _ in range(_RESULTS):
        with suppress(BlobMissing):
            return file_response(*services.blobs.open(variant_key(image["_id"], fence, name)), cache, "image/jpeg")
        services.identity.check()  # raises StoreAway if the whole blob store is missing, not only this file
        current = shown_fence(queries.get_image(services.db, image["_id"], current_principal().stores))
        if current is None or current == fence:
            break
        fence = current
    raise NotFound("This file does not exist; check the URL.")
