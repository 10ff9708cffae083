"""Files: originals byte for byte, renditions, thumbnails and what else was made of an image.

A file server in front may serve those of images that are done (see ``shared/storage/blob_keys.py``).
"""

import io
import re
from typing import BinaryIO, Final

from flask import Blueprint, Response

from shared.augmentations import AUGMENTATIONS
from shared.errors import NotFound
from shared.ids import batch_of, is_image_id
from shared.ledger import queries
from shared.media_types import CONTENT_TYPES
from shared.states import TERMINAL, ImageState
from shared.storage.blob_keys import original_key, spool_key, variant_key
from shared.storage.blobs import BlobMissing, BlobStat
from shared.storage.mongo import Document
from shared.variants import BOXES, RENDITION, THUMB
from web.http.file_response import serve
from web.services import Services, current_services

blueprint = Blueprint("files", __name__)
_NAME: Final = re.compile(r"([0-9a-f]{36})\.([a-z]{3,4})\Z")
_FOREVER: Final = "private, max-age=31536000, immutable"
_CHECK: Final = "private, no-cache"
_PENDING_S: Final = 2


@blueprint.get("/uploads/<name>")
def original(name: str) -> Response:
    """Serve the stored image: the original under its own ending, a JPEG rendition of another format under ``.jpg``."""
    match = _NAME.match(name)
    if match is None:
        raise NotFound("There is no such file.")
    image_id, ending = match[1], match[2]
    services = current_services()
    image = queries.get_image(services.db, image_id)
    ext = image["work"]["ext"]
    if ending == ext:
        answer = serve(*_original(services, image), _FOREVER, CONTENT_TYPES[ext])
        if image["status"] == ImageState.FAILED:  # nobody could look at it, so no browser should try
            answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return answer
    if ending != "jpg":
        raise NotFound("There is no such file.")
    _finished_only(image)
    return _variant(services, image, RENDITION, _FOREVER)


@blueprint.get("/uploads/<image_id>/<variant>.jpg")
def variant(image_id: str, variant: str) -> Response:
    """Serve a picture made from the image: ``thumb``, ``boxes``, or an augmentation by its name."""
    if not is_image_id(image_id) or variant not in {THUMB, BOXES, *AUGMENTATIONS}:
        raise NotFound("There is no such file.")
    services = current_services()
    image = queries.get_image(services.db, image_id)
    _finished_only(image)
    if variant in AUGMENTATIONS and all(made["name"] != variant for made in image["augmentations"]):
        raise NotFound("This augmentation was not asked for.")
    return _variant(services, image, variant, _FOREVER if variant == THUMB else _CHECK)


def _finished_only(image: Document) -> None:
    status = ImageState(image["status"])
    if status not in TERMINAL:
        raise NotFound("This picture has not been looked at yet.", code="image_pending", retry_after=_PENDING_S)
    if status != ImageState.DONE:
        raise NotFound("This picture could not be looked at; its original is at its own ending.", code="image_failed")


def _original(services: Services, image: Document) -> tuple[BinaryIO, BlobStat]:
    """Open an original; until a worker has kept it, it comes out of the upload's spool.

    The spool was written before the kept original will be, so the validators change once, with the same bytes behind them.
    """
    key = original_key(image["_id"], image["work"]["ext"])
    try:
        return services.blobs.open(key)
    except BlobMissing:
        pass
    spool = spool_key(batch_of(image["_id"]))
    try:
        data = services.blobs.read(spool, image["work"]["offset"], image["file_size"])
        found = services.blobs.stat(spool)  # a spool is written once, so this is about what was read
        if found is None:
            raise BlobMissing(spool)
    except BlobMissing:
        services.identity.check()  # else the store is missing, and not this file
        if ImageState(image["status"]) in TERMINAL:
            raise NotFound("The stored bytes of this image cannot be found.") from None
        raise NotFound("This file is not there yet.", code="image_pending", retry_after=_PENDING_S) from None
    return io.BytesIO(data), BlobStat(key, len(data), found.modified)


def _variant(services: Services, image: Document, name: str, cache: str) -> Response:
    try:
        opened = services.blobs.open(variant_key(image["_id"], image["work"]["fence"], name))
    except BlobMissing:
        services.identity.check()  # as above
        raise NotFound("There is no such file.") from None
    return serve(*opened, cache, "image/jpeg")
