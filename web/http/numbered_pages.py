"""Lists that can be read by page number, with links to other pages, and beyond a number of rows only with a cursor."""

from typing import Any
from urllib.parse import urlencode

from flask import Response, request

from shared.errors import FieldError, Invalid


def refuse_page_with_cursor(values: dict[str, Any]) -> None:
    """Refuse a query that has both ``page`` and ``cursor``.

    :param values: the query parameters that ``query.read`` returned.
    :raises Invalid: when ``values`` has both.
    """
    if "page" in values and "cursor" in values:
        detail = "This parameter cannot be combined with `page`; omit one of them."
        raise Invalid(
            "The query has both `page` and `cursor`; send only one of them.", errors=[FieldError("/cursor", "bad_value", detail)]
        )


def next_position(
    number: int | None, pages: int | None, next_cursor: str | None, *, rows: int, reach: int
) -> dict[str, Any] | None:
    """Return the query parameter for the next page: its number, or a cursor. None: there is no such page.

    :param number: the number of this page; None if it was read with a cursor.
    :param pages: the number of pages; None if it is unknown.
    :param rows: the number of rows up to the end of this page.
    :param reach: the number of rows that page numbers reach.
    """
    if number is not None and pages is not None:
        return {"page": number + 1} if number < pages else None
    if next_cursor is None:
        return None
    return {"page": number + 1} if number is not None and rows < reach else {"cursor": next_cursor}


def add_links(response: Response, url: str, number: int | None, pages: int | None, following: dict[str, Any] | None) -> None:
    """Add the Link header (RFC 8288), with the other parameters of the current request.

    The header has links to the first, previous, next and last page. There is no link to the last page if the number of
    pages is unknown. For a list by cursor (``number`` is None), the header links only to the next page.

    :param following: what ``next_position`` returned.
    """
    targets: dict[str, dict[str, Any] | None] = {"next": following}
    if number is not None:
        targets["first"] = {"page": 1}
        targets["last"] = None if pages is None else {"page": max(1, pages)}
        before = number - 1 if pages is None else min(number - 1, max(1, pages))
        targets["prev"] = {"page": before} if before else None
    kept = {name: value for name, value in request.args.items() if name not in {"page", "cursor"}}
    links = [f'<{url}?{urlencode(kept | query)}>; rel="{rel}"' for rel, query in targets.items() if query]
    if links:
        response.headers["Link"] = ", ".join(links)
