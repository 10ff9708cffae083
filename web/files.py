"""Files: originals byte for byte, renditions, thumbnails and what else was made of an image.

A file server in front may serve those of images that are done (see ``shared/layout.py``). A client must not notice who answers,
so ETag and Last-Modified are what nginx makes of the file alone.
"""

import io
import re
from datetime import UTC, datetime
from typing import BinaryIO, Final

from flask import Blueprint, Response, request
from werkzeug.exceptions import PreconditionFailed, RequestedRangeNotSatisfiable
from werkzeug.http import http_date, is_resource_modified, quote_etag
from werkzeug.wsgi import wrap_file

from shared.blobs import BlobMissing, BlobStat
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
        answer = _serve(*_original(at_work, image), _FOREVER, CONTENT_TYPES[ext])
        if image["status"] == ImageState.FAILED:  # nobody could look at it, so no browser should try
            answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return answer
    if ending != "jpg":
        raise NotFound("There is no such file.")
    _finished_only(image)
    return _variant(at_work, image, RENDITION, _FOREVER)


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
    return _variant(at_work, image, variant, _FOREVER if variant == THUMB else _CHECK)


def _finished_only(image: Document) -> None:
    status = ImageState(image["status"])
    if status not in TERMINAL:
        raise NotFound("This picture has not been looked at yet.", code="image_pending", retry_after=_PENDING_S)
    if status != ImageState.DONE:
        raise NotFound("This picture could not be looked at; its original is at its own ending.", code="image_failed")


def _original(at_work: Services, image: Document) -> tuple[BinaryIO, BlobStat]:
    """Open an original; until a worker has kept it, it comes out of the upload's spool.

    The spool was written before the kept original will be, so the validators change once, with the same bytes behind them.
    """
    key = original_key(image["_id"], image["work"]["ext"])
    try:
        return at_work.blobs.open(key)
    except BlobMissing:
        pass
    spool = spool_key(batch_of(image["_id"]))
    try:
        data = at_work.blobs.read(spool, image["work"]["offset"], image["file_size"])
        found = at_work.blobs.stat(spool)  # a spool is written once, so this is about what was read
        if found is None:
            raise BlobMissing(spool)
    except BlobMissing:
        if ImageState(image["status"]) in TERMINAL:
            raise NotFound("The stored bytes of this image cannot be found.") from None
        raise NotFound("This file is not there yet.", code="image_pending", retry_after=_PENDING_S) from None
    return io.BytesIO(data), BlobStat(key, len(data), found.modified)


def _variant(at_work: Services, image: Document, name: str, cache: str) -> Response:
    try:
        opened = at_work.blobs.open(variant_key(image["_id"], image["work"]["fence"], name))
    except BlobMissing:
        raise NotFound("There is no such file.") from None
    return _serve(*opened, cache, "image/jpeg")


def _serve(file: BinaryIO, stat: BlobStat, cache: str, content_type: str) -> Response:
    """Serve an open file with ranges and validators; it is closed with the answer."""
    environ = dict(request.environ)
    etag = quote_etag(f"{stat.modified:x}-{stat.size:x}")
    modified = datetime.fromtimestamp(stat.modified, UTC)
    said, since = environ.pop("HTTP_RANGE", ""), environ.pop("HTTP_IF_RANGE", None)
    # RFC 9110, 13.1.5: only the very same validator lets a range be sent; werkzeug takes weak tags and later dates too.
    same = since in {None, etag, http_date(modified)}
    wanted = _one_range(said, stat.size) if same and request.method == "GET" else None  # RFC 9110, 14.2
    # RFC 9110, 13.2.2: first the conditions, then the range; werkzeug looks at the range first.
    if wanted is not None and is_resource_modified(environ, etag, last_modified=modified):
        environ["HTTP_RANGE"] = wanted
    answer = Response(wrap_file(environ, file, _STEP), mimetype=content_type, direct_passthrough=True)
    answer.content_length = stat.size
    answer.headers["ETag"] = etag
    answer.last_modified = modified
    answer.headers["Cache-Control"] = cache
    answer.call_on_close(file.close)
    try:
        if _changed_since(modified):
            raise PreconditionFailed("The file was written later than If-Unmodified-Since says.")
        answer.make_conditional(environ, accept_ranges=True, complete_length=stat.size)
        if answer.status_code == 412:
            raise PreconditionFailed("The file has another ETag.")
    except (RequestedRangeNotSatisfiable, PreconditionFailed):
        answer.close()
        raise
    return answer


def _changed_since(modified: datetime) -> bool:
    """Read If-Unmodified-Since, which werkzeug does not; an If-Match says it better (RFC 9110, 13.1.4)."""
    limit = request.if_unmodified_since
    return limit is not None and not request.if_match and modified > limit


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
