"""List batches by page or by cursor, return a batch, wait until a batch is finished, and delete a batch."""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from flask import Blueprint, Response

from shared.allowed_stores import AllowedStores
from shared.errors import ShelfsightError
from shared.ledger import batch_images, deletion, queries
from shared.storage.blob_keys import batch_prefix, spool_key
from shared.storage.mongo import Document
from web import image_filters, security_events
from web.batches import paging, parameters, serializers
from web.http import access_rules, cursor_pages, numbered_pages, query, responses, streams
from web.http.authentication import current_principal, recheck
from web.http.path_ids import check_batch_id
from web.image_serializer import ImageSerializer
from web.services import current_services

blueprint = Blueprint("batches", __name__)
_POLL_INTERVAL_S: Final = 0.1
_JSON: Final = "application/json"


@blueprint.get("/image_batches")
@access_rules.requires("images:read")
def list_batches() -> Response:
    """List batches, newest first."""
    values = query.read(image_filters.FILTERS | parameters.PAGING)
    stores = current_principal().stores
    per_page = values.get("per_page", cursor_pages.DEFAULT_PER_PAGE)
    found = paging.read_page(image_filters.to_filters(current_services().db, values), stores, values, per_page)
    number = None if "cursor" in values else values.get("page", 1)
    members: dict[str, Any] = {"per_page": per_page, "next_cursor": found.next_cursor}
    if number is not None:
        members = {"page": number, "per_page": per_page, "total": found.total, "pages": found.pages} | members
    images_per_batch = values.get("images_per_batch", parameters.DEFAULT_IMAGES_PER_BATCH)
    batches = _encode_batches(found.batches, stores, images_per_batch)
    response = streams.buffered_response(serializers.encode_page(members, batches), _JSON)
    following = paging.next_position(found, number, per_page)
    numbered_pages.add_links(response, f"{_base_url()}/image_batches", number, found.pages, following)
    return response


@blueprint.get("/image_batches/<batch_id>")
@access_rules.requires("images:read")
def get_batch(batch_id: str) -> Response:
    """Return a batch with all its images, or with its first ``images_per_batch`` images as in a list.

    With ``wait=N``, return as soon as the batch is finished, or after N seconds.
    """
    db, stores = current_services().db, current_principal().stores
    values = query.read({"wait": query.WAIT, "images_per_batch": parameters.PAGING["images_per_batch"]})
    check_batch_id(batch_id)
    if values.get("wait"):
        _wait_until_closed(batch_id, stores, values["wait"])
        stores = recheck().stores
    found = queries.get_batch(db, batch_id, stores)
    if "images_per_batch" in values:
        return streams.buffered_response(_encode_batches([found], stores, values["images_per_batch"]), _JSON)
    images = batch_images.read_all(db, batch_id, stores, _deadline_ms())
    return streams.streamed_response(serializers.encode_batch(found, images, ImageSerializer()), _JSON)


@blueprint.delete("/image_batches/<batch_id>")
@access_rules.requires("images:write")
def delete_batch(batch_id: str) -> Response:
    """Delete a batch. The principal needs access to all its stores.

    The batch is invisible to all later requests. Its files are deleted immediately. If a worker is still writing files of
    the batch, the sweep deletes these files soon after.
    """
    services = current_services()
    query.read({})
    check_batch_id(batch_id)
    deletion.begin_delete(services.db, batch_id, current_principal().stores)
    # The spool is deleted first, because a process that settles it restores missing originals from it.
    for delete, key in (
        (services.blobs.delete, spool_key(batch_id)),
        (services.blobs.delete_tree, batch_prefix(batch_id)),
    ):
        with suppress(ShelfsightError):  # the sweep also deletes these files, whether or not this attempt succeeded
            delete(key)
    security_events.record("batch.deleted", target=f"batch:{batch_id}")  # last, because it can wait for MongoDB
    return Response(status=204)


def _encode_batches(documents: list[Document], stores: AllowedStores, images_per_batch: int) -> Iterator[bytes]:
    """Return the JSON text of batches with the first of their images that belong to ``stores``, in parts."""
    db, deadline_ms = current_services().db, _deadline_ms()
    totals = {document["_id"]: document["total"] for document in documents}

    def read_rest(batch_id: str) -> Iterator[tuple[str, None]]:
        rest = {other_id: total for other_id, total in totals.items() if other_id < batch_id}
        for other_id, _ in batch_images.read_first(db, rest, stores, 0, deadline_ms):
            yield other_id, None

    images = batch_images.read_first(db, totals, stores, images_per_batch, deadline_ms)
    return serializers.encode_batches(documents, serializers.encode_images(images, read_rest, ImageSerializer()))


def _deadline_ms() -> int:
    return int(current_services().settings.mongo.query_deadline_s * 1000)


def _base_url() -> str:
    return responses.base_url(current_services().settings.web.public_url)


def _wait_until_closed(batch_id: str, stores: AllowedStores, seconds: int) -> None:
    """Wait until the batch is finished, but at most ``seconds`` seconds.

    Return immediately if the maximum number of requests is already waiting, or if the batch has no image of ``stores``.
    """
    services = current_services()
    if not services.wait_slots.acquire(blocking=False):
        return
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not queries.is_closed(services.db, batch_id, stores):
            time.sleep(
                min(_POLL_INTERVAL_S, max(0.0, until - time.monotonic()))
            )  # poll, because there are no notifications about batches
    finally:
        services.wait_slots.release()
