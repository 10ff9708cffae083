"""``POST /img?...``: the URL is read correctly however the query contains it."""

from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UrlRefused
from web.inspections.requests import split_query

OPTIONS = ["", "effect=deepdream", "effect=deepdream&layer=2&strength=0.5", "wait=0"]
urls = st.builds(
    "{}://{}/{}".format,
    st.sampled_from(["http", "https", "HTTPS", "ftp"]),
    st.from_regex(r"[a-z0-9.-]{1,20}(:[0-9]{1,5})?", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
)


@given(urls, st.sampled_from(["", "/", "/:", "/:?=&"]), st.sampled_from(OPTIONS))
def test_an_encoded_url_is_decoded_exactly(url: str, safe: str, options: str) -> None:
    if "&" in safe or "://" in quote(url, safe)[:10]:  # such a URL is not encoded
        return
    query = quote(url, safe)
    assert split_query(f"{query}&{options}" if options else query) == (url, options)


@given(urls, st.sampled_from(OPTIONS))
def test_a_named_url_is_decoded_exactly(url: str, options: str) -> None:
    query = urlencode({"url": url}) + (f"&{options}" if options else "")
    assert split_query(query) == (None, query)
    assert dict(parse_qsl(query, keep_blank_values=True))["url"] == url


@pytest.mark.parametrize(
    ("query", "expected_url", "expected_rest"),
    [
        ("", None, ""),
        ("https://h/a.jpg", "https://h/a.jpg", ""),
        ("https://h/a.jpg?x=1&y=2", "https://h/a.jpg?x=1&y=2", ""),
        ("https://h/a.jpg?x=1&y=2&effect=deepdream&wait=3", "https://h/a.jpg?x=1&y=2", "effect=deepdream&wait=3"),
        (
            "https://h/a.jpg?effect=1&x=2&layer=4",
            "https://h/a.jpg?effect=1&x=2",
            "layer=4",
        ),  # options count only at the end
        ("https://h/a%20b.jpg?u=http%3A%2F%2Fx", "https://h/a%20b.jpg?u=http%3A%2F%2Fx", ""),
        ("https%3A%2F%2Fh%2Fa%2520b.jpg", "https://h/a%20b.jpg", ""),
        ("https%3A//h/a.jpg%3Fx=1%26effect=x&effect=deepdream", "https://h/a.jpg?x=1&effect=x", "effect=deepdream"),
        ("https%3A%2F%2Fh%2Fa+b", "https://h/a+b", ""),
        ("effect=deepdream", None, "effect=deepdream"),
        ("url=x&foo=1", None, "url=x&foo=1"),
        ("foo=1&effect=deepdream", "foo=1", "effect=deepdream"),
    ],
)
def test_options_are_separated_from_the_url(query: str, expected_url: str | None, expected_rest: str) -> None:
    assert split_query(query) == (expected_url, expected_rest)


def test_a_url_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(UrlRefused):
        split_query("https%3A%2F%2Fh%2F%ff")
