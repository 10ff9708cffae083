"""``POST /img?...``: an address comes out as it was meant, however it was put into the query."""

from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UrlRefused
from web.inspections.requests import split_query

OWN = ["", "effect=deepdream", "effect=deepdream&layer=2&strength=0.5", "wait=0"]
urls = st.builds(
    "{}://{}/{}".format,
    st.sampled_from(["http", "https", "HTTPS", "ftp"]),
    st.from_regex(r"[a-z0-9.-]{1,20}(:[0-9]{1,5})?", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
)


@given(urls, st.sampled_from(["", "/", "/:", "/:?=&"]), st.sampled_from(OWN))
def test_an_encoded_address_comes_out_as_it_was(url: str, left_alone: str, own: str) -> None:
    if "&" in left_alone or "://" in quote(url, left_alone)[:10]:  # it is not encoded then
        return
    query = quote(url, left_alone)
    assert split_query(f"{query}&{own}" if own else query) == (url, own)


@given(urls, st.sampled_from(OWN))
def test_an_address_with_a_name_comes_out_as_it_was(url: str, own: str) -> None:
    query = urlencode({"url": url}) + (f"&{own}" if own else "")
    assert split_query(query) == (None, query)
    assert dict(parse_qsl(query, keep_blank_values=True))["url"] == url


@pytest.mark.parametrize(
    ("query", "address", "rest"),
    [
        ("", None, ""),
        ("https://h/a.jpg", "https://h/a.jpg", ""),
        ("https://h/a.jpg?x=1&y=2", "https://h/a.jpg?x=1&y=2", ""),
        ("https://h/a.jpg?x=1&y=2&effect=deepdream&wait=3", "https://h/a.jpg?x=1&y=2", "effect=deepdream&wait=3"),
        ("https://h/a.jpg?effect=1&x=2&layer=4", "https://h/a.jpg?effect=1&x=2", "layer=4"),  # only at the end it is ours
        ("https://h/a%20b.jpg?u=http%3A%2F%2Fx", "https://h/a%20b.jpg?u=http%3A%2F%2Fx", ""),
        ("https%3A%2F%2Fh%2Fa%2520b.jpg", "https://h/a%20b.jpg", ""),
        ("https%3A//h/a.jpg%3Fx=1%26effect=x&effect=deepdream", "https://h/a.jpg?x=1&effect=x", "effect=deepdream"),
        ("https%3A%2F%2Fh%2Fa+b", "https://h/a+b", ""),
        ("effect=deepdream", None, "effect=deepdream"),
        ("url=x&foo=1", None, "url=x&foo=1"),
        ("foo=1&effect=deepdream", "foo=1", "effect=deepdream"),
    ],
)
def test_what_is_ours_and_what_is_the_address(query: str, address: str | None, rest: str) -> None:
    assert split_query(query) == (address, rest)


def test_an_address_that_encodes_no_text_is_refused() -> None:
    with pytest.raises(UrlRefused):
        split_query("https%3A%2F%2Fh%2F%ff")
