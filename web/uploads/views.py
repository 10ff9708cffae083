"""Handle ``POST /upload_image_batch``, and ``POST /images`` for a batch with one image.

The request handler parses the upload, writes the spool (one file with all images of the batch), commits the batch,
publishes a wakeup for the workers, and responds.
"""

import re
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final

import orjson
from flask import Blueprint, Response, g, request

from shared import failpoints
from shared.accounts.permissions import OPEN
from shared.errors import (
    CommitUnknown,
    DiskFull,
    FieldError,
    Invalid,
    ReducedCapacity,
    ShelfsightError,
    StoreAway,
    UnsupportedMedia,
)
from shared.ids import image_id, new_batch_id, time_of
from shared.ledger import commits, idempotency
from shared.storage.blob_keys import spool_key
from web import request_bodies
from web.http import access_rules
from web.http.authentication import current_principal, recheck
from web.http.multipart import parse_form
from web.http.problems import MAX_ERRORS
from web.http.request_body import RequestBody
from web.services import Services, current_services
from web.uploads.digests import FileDigests
from web.uploads.envelope import misplaced_options
from web.uploads.fingerprint import request_fingerprint
from web.uploads.foreign_stores import refuse_foreign_form
from web.uploads.parsed_upload import ParsedUpload, ValidImage
from web.uploads.parsing import parse_form_upload, parse_json_upload
from web.uploads.rules import UploadRules

blueprint = Blueprint("uploads", __name__)
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?\Z")
_DISCARD_TIMEOUT_S: Final = 10.0


@blueprint.post("/upload_image_batch")
@access_rules.counts_as("uploads")
@access_rules.requires("images:upload")
def upload_image_batch() -> Response:
    """Accept a batch, or return all errors in it."""
    return _upload(is_single=False)


@blueprint.post("/images")
@access_rules.counts_as("uploads")
@access_rules.requires("images:upload")
def upload_image() -> Response:
    """Accept one image as a batch, or return all errors in it."""
    return _upload(is_single=True)


def _upload(*, is_single: bool) -> Response:
    services = current_services()
    rules = UploadRules(services.settings.limits, _is_lenient(), current_principal().stores, is_single)
    with FileDigests(services.submit) as digests, request_bodies.open_body() as body:
        upload = _parse(services, body, rules, digests)
        _refuse_misplaced_options()
        return _accept(services, upload, rules, digests, _idempotency_key())


def _parse(services: Services, body: RequestBody, rules: UploadRules, digests: FileDigests) -> ParsedUpload:
    limits = rules.limits
    if not (body.is_json or body.is_form):
        accepted = ["application/json", "multipart/form-data"]
        raise UnsupportedMedia(
            "Unsupported content type; send application/json or multipart/form-data.", extra={"accepted": accepted}
        )
    body.check_length(limits.max_body_bytes)
    _check_capacity(services, body.length or 0)
    if body.is_form:
        refuse_foreign_form(body, rules)
    # The bytes of the body are not assigned to a variable, so that they are freed as soon as they are parsed.
    if body.is_json:
        return parse_json_upload(body.read(limits.max_body_bytes), _with_present_rights(rules), digests)
    parts = parse_form(body.read(limits.max_body_bytes), body.boundary, max_images=limits.max_images)
    return parse_form_upload(parts, _with_present_rights(rules), digests)


def _with_present_rights(rules: UploadRules) -> UploadRules:
    """Return the rules for a body that has been read, which can have taken minutes."""
    return replace(rules, stores=recheck().stores)


def _refuse_misplaced_options() -> None:
    """Refuse an option in the query, because it would have no effect."""
    errors = misplaced_options(request.args)
    if errors:
        raise Invalid(errors[0].detail, code="not_supported", errors=errors)


def _check_capacity(services: Services, upload_bytes: int) -> None:
    """Refuse an upload if there is too little disk space for it, or if no worker takes up the oldest images.

    An upload that repeats an accepted upload is not refused, because it needs no additional space and adds no images.

    :raises DiskFull: when there is too little free space (507).
    :raises ReducedCapacity: when the oldest images have waited for too long (429).
    """
    try:
        services.check_free_space(upload_bytes)
        services.queue_age.check()
    except (DiskFull, ReducedCapacity):
        key = request.headers.get("Idempotency-Key")
        if key is None or not idempotency.is_accepted(services.db, _account_key(key)):
            raise


def _accept(
    services: Services, upload: ParsedUpload, rules: UploadRules, file_digests: FileDigests, key: str | None
) -> Response:
    batch_id = new_batch_id()
    # Another thread writes the spool while this thread completes the digests and MongoDB inserts the documents. The commit
    # waits until the spool is written. If this request repeats an accepted request, the new spool is deleted.
    spool_write = services.submit(services.blobs.write, spool_key(batch_id), [image.data for image in upload.images])
    try:
        digests = file_digests.compute([image.data for image in upload.images])
        request_key = None
        if key is not None:
            fingerprint = request_fingerprint(upload, digests, lenient=rules.lenient)
            request_key = idempotency.RequestKey(_account_key(key), fingerprint)
        body = _accepted_body(batch_id, upload, lenient=rules.lenient)
        batch = _new_batch(services, batch_id, upload, digests)
        stored = commits.commit_batch(
            services.db,
            batch,
            request_key=request_key,
            response_body=body,
            wait_for_spool=lambda seconds: _wait_for_spool(spool_write, seconds),
            deadline_s=services.settings.mongo.commit_deadline_s,
        )
    except CommitUnknown:
        raise  # keep the spool, because the batch may have been committed; if not, the sweep deletes the spool
    except BaseException:
        _discard_spool(services, batch_id, spool_write)
        raise
    if stored is not None:
        _discard_spool(services, batch_id, spool_write)
        return _accepted_response(stored.body)
    failpoints.reach("2-committed")
    services.backlog.add(sum(image.file_size for image in batch.images))
    services.wakeup_thread.notify(batch.turns())
    failpoints.reach("3-rung")
    return _accepted_response(body)


def _wait_for_spool(spool_write: Future[None], seconds: float) -> None:
    try:
        spool_write.result(max(0.0, seconds))
    except TimeoutError:
        raise StoreAway(
            "The disk does not respond, so nothing was accepted; retry later.", code="blobs_unavailable", retry_after=5
        ) from None
    failpoints.reach("1-spool-written")


def _discard_spool(services: Services, batch_id: str, spool_write: Future[None]) -> None:
    try:
        # Wait until the write has ended, because otherwise it would recreate the spool after the deletion.
        spool_write.exception(_DISCARD_TIMEOUT_S)
        services.blobs.delete(spool_key(batch_id))
    except (ShelfsightError, TimeoutError):
        return  # the sweep deletes the spool later


def _new_batch(services: Services, batch_id: str, upload: ParsedUpload, digests: list[str]) -> commits.NewBatch:
    created_at = time_of(batch_id)  # so that the images in the order of their ids are in the order of their times
    images = []
    offset = 0
    for image, sha256 in zip(upload.images, digests, strict=True):
        images.append(_new_image(image, sha256, offset))
        offset += len(image.data)
    default = services.settings.default_augmentations
    augmentations = default if upload.augmentations is None else upload.augmentations
    principal = current_principal()
    account, actor = (None, None) if principal == OPEN else (principal.account, principal.actor)
    return commits.NewBatch(batch_id, images, augmentations, upload.detect, created_at, account, actor, upload.priority)


def _new_image(image: ValidImage, sha256: str, offset: int) -> commits.NewImage:
    return commits.NewImage(
        index=image.index,
        ext=image.ext,
        content_type=image.content_type,
        file_size=len(image.data),
        sha256=sha256,
        offset=offset,
        timestamp=image.timestamp,
        store_name=image.store_name,
        camera_id=image.camera_id,
        barcode=image.barcode,
        filename=image.filename,
        extra=image.extra,
    )


def _accepted_body(batch_id: str, upload: ParsedUpload, *, lenient: bool) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    for image in upload.images:
        name = image_id(batch_id, image.index)
        images.append({"id": name, "index": image.index, "file_path": f"/uploads/{name}.jpg", "status": "queued"})
    for index, errors in upload.rejected.items():
        shown = [error.as_json() for error in errors[:MAX_ERRORS]]
        images.append({"id": None, "index": index, "file_path": None, "status": "rejected", "errors": shown})
    images.sort(key=lambda image: int(image["index"]))
    body: dict[str, Any] = {
        "batch_id": batch_id,
        "status": "queued",
        "total": len(upload.images),
        "images": images,
        "links": {"self": f"/image_batches/{batch_id}"},
    }
    if lenient:
        body |= {"accepted": len(upload.images), "rejected": len(upload.rejected)}
    return body


def _accepted_response(body: dict[str, Any]) -> Response:
    response = Response(orjson.dumps(body), 202, mimetype="application/json")
    response.headers["Location"] = body["links"]["self"]
    if _is_lenient():
        response.headers["Preference-Applied"] = "handling=lenient"
    g.batch_id = body["batch_id"]
    return response


def _is_lenient() -> bool:
    """Return whether the client prefers ``handling=lenient``.

    If the request has several ``handling`` preferences, only the first is used (RFC 7240, 2).
    """
    for preference in ",".join(request.headers.getlist("Prefer")).split(","):
        name, _, value = preference.split(";")[0].partition("=")
        if name.strip().lower() == "handling":
            return value.strip().strip('"').lower() == "lenient"
    return False


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not _IDEMPOTENCY_KEY.match(key):
        detail = "The Idempotency-Key is invalid; use 1 to 255 printable ASCII characters."
        raise Invalid(
            detail, code="bad_idempotency_key", errors=[FieldError("/Idempotency-Key", "bad_idempotency_key", detail)]
        )
    return key


def _account_key(key: str) -> str:
    """Return the idempotency key under which a response is stored. It belongs to the account of the current request."""
    return f"{current_principal().account}:{key}"
