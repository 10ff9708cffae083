"""List batches by page or by cursor, return a batch, wait until a batch is finished, and delete a batch."""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from shared.allowed_stores import AllowedStores
from shared.errors import NotFound, ShelfsightError
from shared.ids import is_batch_id
from shared.ledger import batch_images, deletion, queries
from shared.storage.blob_keys import batch_prefix, spool_key
from shared.storage.mongo import Document
from web import file_urls, security_events
from web.batches import filters, paging, serializers
from web.http import access_rules, cursor_pages, query, responses, streams
from web.http.authentication import current_principal, recheck
from web.services import current_services

blueprint = Blueprint("batches", __name__)
_POLL_INTERVAL_S: Final = 0.1
_JSON: Final = "application/json"


@blueprint.get("/image_batches")
@access_rules.requires("images:read")
def list_batches() -> Response:
    """List batches, newest first."""
    values = query.read(filters.FILTERS | filters.PAGING)
    stores = current_principal().stores
    per_page = values.get("per_page", cursor_pages.DEFAULT_PER_PAGE)
    found = paging.read_page(filters.from_query(values), stores, values, per_page)
    number = None if "cursor" in values else values.get("page", 1)
    members: dict[str, Any] = {"per_page": per_page, "next_cursor": found.next_cursor}
    if number is not None:
        members = {"page": number, "per_page": per_page, "total": found.total, "pages": found.pages} | members
    images_per_batch = values.get("images_per_batch", filters.DEFAULT_IMAGES_PER_BATCH)
    batches = _encode_batches(found.batches, stores, images_per_batch)
    response = streams.buffered_response(serializers.encode_page(members, batches), _JSON)
    _add_links(response, _base_url(), number, found, per_page)
    return response


@blueprint.get("/image_batches/<batch_id>")
@access_rules.requires("images:read")
def get_batch(batch_id: str) -> Response:
    """Return a batch with all its images, or with its first ``images_per_batch`` images as in a list.

    With ``wait=N``, return as soon as the batch is finished, or after N seconds.
    """
    db, stores = current_services().db, current_principal().stores
    values = query.read({"wait": query.WAIT, "images_per_batch": filters.PAGING["images_per_batch"]})
    _check_id(batch_id)
    if values.get("wait"):
        _wait_until_closed(batch_id, stores, values["wait"])
        stores = recheck().stores
    found = queries.get_batch(db, batch_id, stores)
    if "images_per_batch" in values:
        return streams.buffered_response(_encode_batches([found], stores, values["images_per_batch"]), _JSON)
    images = batch_images.read_all(db, batch_id, stores, _deadline_ms())
    return streams.streamed_response(serializers.encode_batch(found, images, file_urls.absolute()), _JSON)


@blueprint.delete("/image_batches/<batch_id>")
@access_rules.requires("images:write")
def delete_batch(batch_id: str) -> Response:
    """Delete a batch. The principal needs access to all its stores.

    The batch is invisible to all later requests. Its files are deleted immediately. If a worker is still writing files of
    the batch, the sweep deletes these files soon after.
    """
    services = current_services()
    query.read({})
    _check_id(batch_id)
    deletion.begin_delete(services.db, batch_id, current_principal().stores)
    security_events.record("batch.deleted", target=f"batch:{batch_id}")
    # The spool is deleted first, because a process that settles it restores missing originals from it.
    for delete, key in (
        (services.blobs.delete, spool_key(batch_id)),
        (services.blobs.delete_tree, batch_prefix(batch_id)),
    ):
        with suppress(ShelfsightError):  # the sweep also deletes these files, whether or not this attempt succeeded
            delete(key)
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
    return serializers.encode_batches(documents, serializers.encode_images(images, read_rest, file_urls.absolute()))


def _deadline_ms() -> int:
    return int(current_services().settings.mongo.query_deadline_s * 1000)


def _base_url() -> str:
    return responses.base_url(current_services().settings.web.public_url)


def _check_id(batch_id: str) -> None:
    if not is_batch_id(batch_id):
        raise NotFound("There is no such batch.")


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


def _add_links(response: Response, base: str, number: int | None, found: queries.Page, per_page: int) -> None:
    """Add the Link header (RFC 8288).

    The header has links to the first, previous, next and last page. There is no link to the last page if the number of
    pages is unknown. For a list by cursor (``number`` is None), the header links only to the next page.
    """
    targets: dict[str, dict[str, Any] | None] = {"next": paging.next_position(found, number, per_page)}
    if number is not None:
        targets["first"] = {"page": 1}
        targets["last"] = None if found.pages is None else {"page": max(1, found.pages)}
        before = number - 1 if found.pages is None else min(number - 1, max(1, found.pages))
        targets["prev"] = {"page": before} if before else None
    kept = {name: value for name, value in request.args.items() if name not in {"page", "cursor"}}
    links = [f'<{base}/image_batches?{urlencode(kept | query)}>; rel="{rel}"' for rel, query in targets.items() if query]
    if links:
        response.headers["Link"] = ", ".join(links)
