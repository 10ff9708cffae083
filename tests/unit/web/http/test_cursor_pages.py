"""Lists with a cursor return every row once, and refuse other cursors than their own."""

from operator import itemgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import MultiDict

from shared.errors import Invalid
from web.http import cursor_pages, query

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=500, blacklist_categories=["Cc", "Zs"]), min_size=1, max_size=20)


def read_page(names: list[str], parameters: dict[str, str]) -> dict[str, Any]:
    values = query.read(cursor_pages.PARAMETERS, MultiDict(parameters))
    paging = cursor_pages.read_paging(values, is_key=lambda text: text in names)
    rows = [{"name": name} for name in names if paging.after is None or name > paging.after][: paging.limit]
    page = cursor_pages.page("names", rows, paging, key_of=itemgetter("name"), show=dict).get_json()
    assert isinstance(page, dict)
    return page


@given(names=st.sets(NAMES, max_size=25).map(sorted), per_page=st.integers(1, 30))
def test_the_pages_have_every_row_once_and_the_last_has_no_cursor(names: list[str], per_page: int) -> None:
    pages = [read_page(names, {"per_page": str(per_page)})]
    while (cursor := pages[-1]["next_cursor"]) is not None:
        pages.append(read_page(names, {"per_page": str(per_page), "cursor": cursor}))
    assert [row["name"] for page in pages for row in page["names"]] == names
    assert all(len(page["names"]) == per_page for page in pages[:-1])
    assert len(pages) == max(1, -(-len(names) // per_page))


def test_a_page_has_twenty_rows_by_default_and_up_to_a_hundred() -> None:
    names = [f"{number:03}" for number in range(200)]
    assert len(read_page(names, {})["names"]) == 20
    assert len(read_page(names, {"per_page": "100"})["names"]) == 100


@pytest.mark.parametrize("per_page", ["0", "101", "-1", "x", "1e1"])
def test_another_number_of_rows_is_refused(per_page: str) -> None:
    with pytest.raises(Invalid) as raised:
        read_page([], {"per_page": per_page})
    assert [error.pointer for error in raised.value.errors] == ["/per_page"]


@pytest.mark.parametrize("cursor", ["newest", "$gt", '{"$gt":""}', "b" * 200])
def test_an_unknown_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(Invalid) as raised:
        read_page(["a"], {"cursor": cursor})
    assert (raised.value.code, raised.value.errors[0].pointer) == ("bad_cursor", "/cursor")
