"""Files: originals byte for byte, renditions, thumbnails and what else was made of an image."""

import io
import re
from typing import BinaryIO, Final

from flask import Blueprint, Response, request
from werkzeug.exceptions import PreconditionFailed, RequestedRangeNotSatisfiable
from werkzeug.http import is_resource_modified, quote_etag
from werkzeug.wsgi import wrap_file

from shared.blobs import BlobMissing
from shared.contract import AUGMENTATIONS, BOXES, CONTENT_TYPES, RENDITION, THUMB
from shared.errors import NotFound
from shared.ids import batch_of, is_image_id
from shared.layout import original_key, spool_key, variant_key
from shared.ledger import pages
from shared.mongo import Document
from shared.states import TERMINAL, ImageState
from web.services import Services, services

blueprint = Blueprint("files", __name__)
_NAME: Final = re.compile(r"([0-9a-f]{36})\.([a-z]{3,4})\Z")
_RANGE: Final = re.compile(r"bytes=(?:([0-9]{1,20})-([0-9]{0,20})|-([0-9]{1,20}))\Z", re.IGNORECASE)
_STEP: Final = 256 * 1024
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
    at_work = services()
    image = pages.get_image(at_work.db, image_id)
    ext = image["work"]["ext"]
    if ending == ext:
        file, size = _original(at_work, image)
        answer = _serve(file, size, f'{image["sha256"][:32]}', _FOREVER, CONTENT_TYPES[ext])
        if image["status"] == ImageState.FAILED:  # nobody could look at it, so no browser should try
            answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return answer
    if ending != "jpg":
        raise NotFound("There is no such file.")
    _finished_only(image)
    return _variant(at_work, image, RENDITION, f'{image["sha256"][:32]}-jpg', _FOREVER)


@blueprint.get("/uploads/<image_id>/<variant>.jpg")
def variant(image_id: str, variant: str) -> Response:
    """Serve a picture made from the image: ``thumb``, ``boxes``, or an augmentation by its name."""
    if not is_image_id(image_id) or variant not in {THUMB, BOXES, *AUGMENTATIONS}:
        raise NotFound("There is no such file.")
    at_work = services()
    image = pages.get_image(at_work.db, image_id)
    _finished_only(image)
    if variant in AUGMENTATIONS and all(made["name"] != variant for made in image["augmentations"]):
        raise NotFound("This augmentation was not asked for.")
    fence = image["work"]["fence"]
    return _variant(at_work, image, variant, f"{image_id}-{fence}-{variant}", _FOREVER if variant == THUMB else _CHECK)


def _finished_only(image: Document) -> None:
    status = ImageState(image["status"])
    if status not in TERMINAL:
        raise NotFound("This picture has not been looked at yet.", code="image_pending", retry_after=_PENDING_S)
    if status != ImageState.DONE:
        raise NotFound("This picture could not be looked at; its original is at its own ending.", code="image_failed")


def _original(at_work: Services, image: Document) -> tuple[BinaryIO, int]:
    """Open an original; until a worker has kept it, it comes out of the upload's spool."""
    size = int(image["file_size"])
    try:
        return at_work.blobs.open(original_key(image["_id"], image["work"]["ext"])), size
    except BlobMissing:
        pass
    try:
        spooled = at_work.blobs.read(spool_key(batch_of(image["_id"])), image["work"]["offset"], size)
    except BlobMissing:
        if ImageState(image["status"]) in TERMINAL:
            raise NotFound("The stored bytes of this image cannot be found.") from None
        raise NotFound("This file is not there yet.", code="image_pending", retry_after=_PENDING_S) from None
    return io.BytesIO(spooled), size


def _variant(at_work: Services, image: Document, name: str, etag: str, cache: str) -> Response:
    key = variant_key(image["_id"], image["work"]["fence"], name)
    found = at_work.blobs.stat(key)
    try:
        if found is None:
            raise BlobMissing(key)
        return _serve(at_work.blobs.open(key), found.size, etag, cache, "image/jpeg")
    except BlobMissing:
        raise NotFound("There is no such file.") from None


def _serve(file: BinaryIO, size: int, etag: str, cache: str, content_type: str) -> Response:
    """Serve an open file with ranges and validators; it is closed with the answer."""
    environ = dict(request.environ)
    said = environ.pop("HTTP_RANGE", "")
    wanted = _one_range(said, size) if request.method == "GET" else None  # RFC 9110, 14.2
    # RFC 9110, 13.2.2: first the conditions, then the range; werkzeug looks at the range first.
    if wanted is not None and is_resource_modified(environ, quote_etag(etag)):
        environ["HTTP_RANGE"] = wanted
    answer = Response(wrap_file(environ, file, _STEP), mimetype=content_type, direct_passthrough=True)
    answer.content_length = size
    answer.set_etag(etag)
    answer.headers["Cache-Control"] = cache
    answer.call_on_close(file.close)
    try:
        answer.make_conditional(environ, accept_ranges=True, complete_length=size)
        if answer.status_code == 412:
            raise PreconditionFailed("The file has another ETag.")
    except (RequestedRangeNotSatisfiable, PreconditionFailed):
        answer.close()
        raise
    return answer


def _one_range(said: str, size: int) -> str | None:
    """Read a Range header as RFC 9110, 14.1.2 does; None for what it treats as if it were not there.

    :returns: a range that begins with a position; a suffix longer than the file begins at 0.
    """
    match = _RANGE.match(said)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        length = int(suffix)
        return f"bytes={max(0, size - length) if length else size}-"
    if last and int(last) < int(first):
        return None
    return f"bytes={first}-{last}"
