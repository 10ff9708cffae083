"""``POST /upload_image_batch``: understand, keep, commit, ring, answer."""

import hashlib
import re
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

import orjson
from flask import Blueprint, Response, g, request

from shared import failpoints
from shared.errors import CommitUnknown, DiskFull, FieldError, Invalid, ShelfsightError, StoreAway, UnsupportedMedia
from shared.ids import image_id, new_batch_id
from shared.ledger import commits, idempotency
from shared.storage.blob_keys import spool_key
from web.http import body_limits, multipart
from web.http.body_stream import open_wire
from web.http.problems import MAX_ERRORS
from web.services import Services, current_services
from web.uploads.parsing import Good, Parsed, load, parse_json, parse_multipart

blueprint = Blueprint("uploads", __name__)
_KEY = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?\Z")
_ACCOUNT = "open"
_HASH_ALONE = 1 << 20
_DISCARD_S = 10.0


@blueprint.post("/upload_image_batch")
def upload_image_batch() -> Response:
    """Accept a batch, or say everything that is wrong with it."""
    services = current_services()
    lenient = _is_lenient()
    with services.budget.share() as take:
        with open_wire(request.environ, services.settings.web.body_patience_s) as wire:
            parsed = _read(services, wire, take, lenient=lenient)
        return _accept(services, parsed, _idempotency_key(), lenient=lenient)


def _read(services: Services, stream: body_limits.Readable, take: Any, *, lenient: bool) -> Parsed:
    limits = services.settings.limits
    kind = request.mimetype
    if kind not in {"", "application/json", "multipart/form-data"} and not kind.endswith("+json"):
        accepted = ["application/json", "multipart/form-data"]
        raise UnsupportedMedia("Send application/json or multipart/form-data.", extra={"accepted": accepted})
    length = request.content_length
    if length is not None and length > limits.max_body_bytes:
        raise body_limits.too_large(limits.max_body_bytes)
    _check_room(services, length or 0)
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if length is None and not request.environ.get("wsgi.input_terminated"):
        length = 0
    if kind != "multipart/form-data":
        tree = load(body_limits.read_body(stream, length, encoding, limits.max_body_bytes, take), limits)
        return parse_json(tree, limits, lenient=lenient)
    boundary = request.mimetype_params.get("boundary", "")
    body = body_limits.read_body(stream, length, encoding, limits.max_body_bytes, take)
    parts = multipart.take_apart(body, boundary, max_images=limits.max_images)
    del body
    return parse_multipart(parts, limits, lenient=lenient)


def _check_room(services: Services, coming: int) -> None:
    """Refuse what there is no room for; a repetition of what was accepted needs none."""
    try:
        services.check_room(coming)
    except DiskFull:
        key = request.headers.get("Idempotency-Key")
        if key is None or not idempotency.is_accepted(services.db, f"{_ACCOUNT}:{key}"):
            raise


def _accept(services: Services, parsed: Parsed, key: str | None, *, lenient: bool) -> Response:
    batch_id = new_batch_id()
    # The disk works while the processor hashes and MongoDB takes the documents; the commit waits for it. A request that turns
    # out to be a repetition has its spool deleted again.
    writing = services.beside(services.blobs.write, spool_key(batch_id), [image.data for image in parsed.good])
    begun = None
    try:
        digests = _digests(services, parsed.good)
        if key is not None:
            taken = idempotency.reserve_key(services.db, f"{_ACCOUNT}:{key}", parsed.fingerprint(digests, lenient=lenient))
            if isinstance(taken, idempotency.StoredResponse):
                _discard(services, batch_id, writing)
                return _accepted(taken.body)
            begun = taken
        answer = _answer(batch_id, parsed, lenient=lenient)
        batch = _new_batch(services, batch_id, parsed, digests)
        commits.commit_batch(
            services.db,
            batch,
            reservation=begun,
            response_body=answer,
            wait_for_spool=lambda seconds: _wait(writing, seconds),
            deadline_s=services.settings.mongo.commit_deadline_s,
        )
    except CommitUnknown:
        raise  # the spool may be needed; the sweep finds out
    except BaseException:
        _discard(services, batch_id, writing)
        if begun is not None:
            _forget(services, begun)
        raise
    failpoints.reach("2-committed")
    services.wakeup_thread.notify({image.store_name for image in parsed.good})
    failpoints.reach("3-rung")
    return _accepted(answer)


def _digests(services: Services, images: list[Good]) -> list[str]:
    """Give the sha256 of each image; two threads share the work when it is much."""
    middle = len(images) // 2 if sum(len(image.data) for image in images) > _HASH_ALONE else 0
    first = services.beside(_hash, images[:middle]) if middle else None
    rest = _hash(images[middle:])
    return first.result() + rest if first is not None else rest


def _hash(images: list[Good]) -> list[str]:
    return [hashlib.sha256(image.data).hexdigest() for image in images]


def _wait(writing: Future[None], seconds: float) -> None:
    try:
        writing.result(max(0.0, seconds))
    except TimeoutError:
        raise StoreAway("The disk does not answer; nothing was accepted.", code="blobs_unavailable", retry_after=5) from None
    failpoints.reach("1-spool-written")


def _discard(services: Services, batch_id: str, writing: Future[None]) -> None:
    """Remove the spool of a request that needs none."""
    try:
        writing.exception(_DISCARD_S)  # what is not written yet would come back
        services.blobs.delete(spool_key(batch_id))
    except (ShelfsightError, TimeoutError):
        return  # the sweep does it


def _new_batch(services: Services, batch_id: str, parsed: Parsed, digests: list[str]) -> commits.NewBatch:
    created_at = datetime.now(UTC).replace(tzinfo=None)
    created_at = created_at.replace(microsecond=created_at.microsecond // 1000 * 1000)
    images = []
    offset = 0
    for image, sha256 in zip(parsed.good, digests, strict=True):
        images.append(_new_image(image, sha256, offset))
        offset += len(image.data)
    default = services.settings.default_augmentations
    names = default if parsed.augmentations is None else parsed.augmentations
    return commits.NewBatch(batch_id, images, names, parsed.detect, created_at)


def _forget(services: Services, begun: idempotency.KeyReservation) -> None:
    try:
        idempotency.release_key(services.db, begun)
    except ShelfsightError:
        return  # it frees itself within a minute


def _new_image(image: Good, sha256: str, offset: int) -> commits.NewImage:
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


def _answer(batch_id: str, parsed: Parsed, *, lenient: bool) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    for image in parsed.good:
        name = image_id(batch_id, image.index)
        images.append({"id": name, "index": image.index, "file_path": f"/uploads/{name}.jpg", "status": "queued"})
    for index, errors in parsed.bad.items():
        shown = [error.as_json() for error in errors[:MAX_ERRORS]]
        images.append({"id": None, "index": index, "file_path": None, "status": "rejected", "errors": shown})
    images.sort(key=lambda image: int(image["index"]))
    answer: dict[str, Any] = {
        "batch_id": batch_id,
        "status": "queued",
        "total": len(parsed.good),
        "images": images,
        "links": {"self": f"/image_batches/{batch_id}"},
    }
    if lenient:
        answer |= {"accepted": len(parsed.good), "rejected": len(parsed.bad)}
    return answer


def _accepted(answer: dict[str, Any]) -> Response:
    response = Response(orjson.dumps(answer), 202, mimetype="application/json")
    response.headers["Location"] = answer["links"]["self"]
    if _is_lenient():
        response.headers["Preference-Applied"] = "handling=lenient"
    g.batch_id = answer["batch_id"]
    return response


def _is_lenient() -> bool:
    """Say whether the client prefers ``handling=lenient``; of several the first counts (RFC 7240, 2)."""
    for preference in ",".join(request.headers.getlist("Prefer")).split(","):
        name, _, value = preference.split(";")[0].partition("=")
        if name.strip().lower() == "handling":
            return value.strip().strip('"').lower() == "lenient"
    return False


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not _KEY.match(key):
        detail = "An Idempotency-Key has 1 to 255 printable ASCII characters."
        raise Invalid(detail, code="bad_idempotency_key", errors=[FieldError("/Idempotency-Key", "bad_idempotency_key", detail)])
    return key
