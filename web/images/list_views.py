"""List images by page or by cursor."""

from collections.abc import Callable
from typing import Any, Final

from flask import Blueprint, Response

from shared.allowed_stores import AllowedStores
from shared.catalog import image_lists
from shared.catalog.image_orders import DEFAULT_ORDER, ORDERS
from shared.ledger.filters import Filters
from web import image_filters
from web.http import access_rules, cursor_pages, numbered_pages, query, responses, streams
from web.http.authentication import current_principal
from web.image_serializer import ImageSerializer
from web.images import list_encoding
from web.services import current_services

blueprint = Blueprint("image_lists", __name__)


def _sort(text: str) -> str:
    if text not in ORDERS:
        raise ValueError(f"This order is unknown. Valid values: {', '.join(ORDERS)}.")
    return text


_PAGING: Final[dict[str, Callable[[str], Any]]] = {
    "page": query.integer(1, query.MAX_PAGE),
    "sort": _sort,
    **cursor_pages.PARAMETERS,
}


@blueprint.get("/images")
@access_rules.requires("images:read")
def list_images() -> Response:
    """List the images that meet all filters, by page or by cursor."""
    values = query.read(image_filters.IMAGE_FILTERS | _PAGING)
    services, stores = current_services(), current_principal().stores
    deadline_s = services.settings.mongo.query_deadline_s
    per_page = values.get("per_page", cursor_pages.DEFAULT_PER_PAGE)
    serializer = ImageSerializer()
    filters = image_filters.to_filters(services.db, values, names=serializer.tag_names)
    found = _read_page(filters, stores, values, per_page)
    images = image_lists.read_images(services.db, found, stores, deadline_s=deadline_s)
    texts, cut_after = list_encoding.encode_images(images, serializer)
    number = None if "cursor" in values else values.get("page", 1)
    cursor = found.next_cursor if cut_after is None else found.cursor_after(cut_after)
    members: dict[str, Any] = {"per_page": per_page, "next_cursor": cursor}
    if number is not None:
        members = {"page": number, "per_page": per_page, "total": found.total, "pages": found.pages} | members
    following: dict[str, Any] | None = {"cursor": cursor}  # page numbers would leave out what this page leaves out
    if cut_after is None:
        following = numbered_pages.next_position(number, found.pages, cursor, rows=(number or 0) * per_page, reach=image_lists.MAX_ROWS)
    parts = list_encoding.encode_page(members, texts, is_cut=cut_after is not None)
    response = streams.buffered_response(parts, "application/json")
    base = responses.base_url(services.settings.web.public_url)
    numbered_pages.add_links(response, f"{base}/images", number, found.pages, following)
    return response


def _read_page(chosen: Filters, stores: AllowedStores, values: dict[str, Any], per_page: int) -> image_lists.ImagePage:
    services = current_services()
    deadline_s = services.settings.mongo.query_deadline_s
    numbered_pages.refuse_page_with_cursor(values)
    sort = values.get("sort", DEFAULT_ORDER)
    if "cursor" in values:
        return image_lists.images_after(services.db, chosen, stores, sort, values["cursor"], per_page, deadline_s=deadline_s)
    return image_lists.page_of_images(services.db, chosen, stores, sort, values.get("page", 1), per_page, deadline_s=deadline_s)
