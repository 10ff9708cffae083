"""Batches: lists by page or cursor, one batch, waiting for it, deleting it; and the limits of an upload."""

import time
from typing import Any, Final
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from shared.augmentations import AUGMENTATIONS
from shared.errors import FieldError, Invalid, NotFound, ShelfsightError
from shared.ids import is_batch_id
from shared.ledger import deletion, queries
from shared.media_types import SIGNATURES
from shared.storage.blob_keys import batch_prefix, spool_key
from web.batches import serializers
from web.http import query
from web.services import current_services

blueprint = Blueprint("batches", __name__)
_LOOK_AGAIN_S: Final = 0.1


@blueprint.get("/limits")
def limits() -> Response:
    """Say what an upload may be."""
    query.read({})
    settings = current_services().settings
    return serializers.as_json(
        {
            "max_body_bytes": settings.limits.max_body_bytes,
            "max_images": settings.limits.max_images,
            "max_image_bytes": settings.limits.max_image_bytes,
            "max_pixels": settings.limits.max_pixels,
            "formats": list(SIGNATURES),
            "augmentations": list(AUGMENTATIONS),
            "default_augmentations": list(settings.default_augmentations),
        }
    )


@blueprint.get("/image_batches")
def list_batches() -> Response:
    """List batches, newest first."""
    services = current_services()
    values = query.read(query.FILTERS | query.PAGING)
    if "page" in values and "cursor" in values:
        raise Invalid("Give page or cursor.", errors=[FieldError("/cursor", "bad_value", "It does not go with page.")])
    filters = query.filters(values)
    per_page, images_each = values.get("per_page", 20), values.get("images_per_batch", 100)
    deadline_s = services.settings.mongo.query_deadline_s
    number = values.get("page", 1)
    if "cursor" in values:
        found = queries.batches_after(services.db, filters, values["cursor"], per_page, images_each, deadline_s)
        body: dict[str, Any] = {"per_page": per_page, "next_cursor": found.next_cursor}
    else:
        found = queries.page_of_batches(services.db, filters, number, per_page, images_each, deadline_s)
        body = {"page": number, "per_page": per_page, "total": found.total, "pages": found.pages}
        body["next_cursor"] = found.next_cursor
    base = serializers.base_url(services.settings.web.public_url)
    body["batches"] = serializers.batches(found.batches, base)
    answer = serializers.as_json(body)
    _link(answer, base, number, found, by_cursor="cursor" in values)
    return answer


@blueprint.get("/image_batches/<batch_id>")
def one_batch(batch_id: str) -> Response:
    """Show a batch with all its images; with ``wait=`` as soon as it is finished."""
    services = current_services()
    values = query.read({"wait": query.WAIT})
    _check(batch_id)
    if values.get("wait"):
        _wait(batch_id, values["wait"])
    base = serializers.base_url(services.settings.web.public_url)
    return serializers.as_json(serializers.batch(queries.get_batch(services.db, batch_id), base))


@blueprint.delete("/image_batches/<batch_id>")
def delete_batch(batch_id: str) -> Response:
    """Delete a batch: it is out of sight at once, its files go now or, where a worker still writes, soon."""
    services = current_services()
    query.read({})
    _check(batch_id)
    deletion.begin_delete(services.db, batch_id)
    try:
        services.blobs.delete_tree(batch_prefix(batch_id))
        services.blobs.delete(spool_key(batch_id))
    except ShelfsightError:
        pass  # the sweep does it again anyway
    return Response(status=204)


def _check(batch_id: str) -> None:
    if not is_batch_id(batch_id):
        raise NotFound("There is no such batch.")


def _wait(batch_id: str, seconds: int) -> None:
    """Wait until the batch is finished; at once when too many wait already."""
    services = current_services()
    if not services.waiters.acquire(blocking=False):
        return
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not queries.is_closed(services.db, batch_id):
            time.sleep(min(_LOOK_AGAIN_S, max(0.0, until - time.monotonic())))  # nothing tells us when: ask again
    finally:
        services.waiters.release()


def _link(answer: Response, base: str, number: int, found: queries.Page, *, by_cursor: bool) -> None:
    targets: dict[str, dict[str, Any]] = {}
    if by_cursor:
        if found.next_cursor:
            targets["next"] = {"cursor": found.next_cursor}
    elif found.pages is not None:
        targets["first"] = {"page": 1}
        targets["last"] = {"page": max(1, found.pages)}
        if number > 1:
            targets["prev"] = {"page": min(number - 1, max(1, found.pages))}
        if number < found.pages:
            targets["next"] = {"page": number + 1}
    kept = {name: value for name, value in request.args.items() if name not in {"page", "cursor"}}
    links = [f'<{base}/image_batches?{urlencode(kept | query)}>; rel="{rel}"' for rel, query in targets.items()]
    if links:
        answer.headers["Link"] = ", ".join(links)
