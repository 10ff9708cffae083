"""Read a page of a list of batches at the position that the query names, and find the position of the next page."""

from typing import Any

from shared.allowed_stores import AllowedStores
from shared.ledger import queries
from shared.ledger.filters import Filters
from web.http import numbered_pages
from web.services import current_services


def read_page(chosen: Filters, stores: AllowedStores, values: dict[str, Any], per_page: int) -> queries.Page:
    """Return the page of batches at the ``cursor`` or the ``page`` among ``values``; without either, the first page.

    :param values: the query parameters that ``query.read`` returned.
    :raises Invalid: when ``values`` has both, the cursor is unknown, or page numbers do not reach the page.
    :raises TooSlow: when finding or counting the batches takes too long.
    """
    services = current_services()
    deadline_s = services.settings.mongo.query_deadline_s
    numbered_pages.refuse_page_with_cursor(values)
    if "cursor" in values:
        return queries.batches_after(services.db, chosen, stores, values["cursor"], per_page, deadline_s=deadline_s)
    return queries.page_of_batches(services.db, chosen, stores, values.get("page", 1), per_page, deadline_s=deadline_s)


def next_position(found: queries.Page, number: int | None, per_page: int) -> dict[str, Any] | None:
    """Return the query parameter for the page after ``found``: its number, or a cursor. None: there is no such page.

    :param number: the number of the page ``found``; None if it was read with a cursor.
    """
    rows = (number or 0) * per_page
    return numbered_pages.next_position(number, found.pages, found.next_cursor, rows=rows, reach=queries.PAGED_WITHOUT_TOTAL)
