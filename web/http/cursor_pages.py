"""Lists that are read page by page with a cursor, such as those of users, keys, invitations and audit events.

Each list takes the parameters ``per_page`` and ``cursor``, and answers ``{<noun>: [...], next_cursor}``. A cursor is the
key of the last row of a page, by which the list is sorted. Without a cursor, the list begins with its first page. A view
reads the page like this::

    values = query.read(FILTERS | cursor_pages.PARAMETERS)
    paging = cursor_pages.read_paging(values, is_key=is_event_id)
    rows = read_events(db, after=paging.after, limit=paging.limit)
    return cursor_pages.page("events", rows, paging, key_of=itemgetter("id"), show=event)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from flask import Response

from shared.errors import FieldError, Invalid
from web.http import query, responses

DEFAULT_PER_PAGE: Final = 20
MAX_PER_PAGE: Final = 100
Row = TypeVar("Row")
PARAMETERS: Final[dict[str, Callable[[str], Any]]] = {
    "per_page": query.integer(1, MAX_PER_PAGE),
    "cursor": query.text,
}
"""The parameters of every list with a cursor, for ``query.read``."""


@dataclass(frozen=True, slots=True)
class Paging:
    """Which rows a request asks for: at most ``per_page`` rows after the row with the key ``after``.

    ``after`` is None for the first page.
    """

    per_page: int
    after: str | None

    @property
    def limit(self) -> int:
        """The number of rows to read: one more than the page has, which shows whether there is another page."""
        return self.per_page + 1


def read_paging(values: dict[str, Any], *, is_key: Callable[[str], bool]) -> Paging:
    """Return which rows a request asks for.

    :param values: the query parameters that ``query.read`` returned.
    :param is_key: returns whether a text has the form of a key of the list.
    :raises Invalid: when the cursor does not have this form (``bad_cursor``).
    """
    cursor = values.get("cursor")
    if cursor is not None and not is_key(cursor):
        detail = "Unknown cursor; omit it to get the first page."
        raise Invalid(detail, code="bad_cursor", errors=[FieldError("/cursor", "bad_value", detail)])
    return Paging(values.get("per_page", DEFAULT_PER_PAGE), cursor)


def page(
    noun: str, rows: Sequence[Row], paging: Paging, *, key_of: Callable[[Row], str], show: Callable[[Row], dict[str, Any]]
) -> Response:
    """Return the JSON response with a page of a list.

    :param noun: the name of the member that contains the rows.
    :param rows: the rows in the order of the list; up to ``paging.limit``.
    :param key_of: returns the key of a row.
    :param show: returns a row as the response shows it.
    """
    shown = rows[: paging.per_page]
    next_cursor = key_of(shown[-1]) if len(rows) > len(shown) else None
    return responses.json_response({noun: [show(row) for row in shown], "next_cursor": next_cursor})
