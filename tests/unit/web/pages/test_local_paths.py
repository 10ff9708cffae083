"""The page to open after signing in: a path of this service, never the address of another site."""

import pytest

from web.pages.account_views import local_path


@pytest.mark.parametrize("path", ["/", "/batches/0123", "/?page=2", "/docs#sign-in", "/?url=https://example.org/a.jpg", "/.//a", "/a//b"])
def test_a_local_path_is_kept(path: str) -> None:
    assert local_path(path) == path


@pytest.mark.parametrize(
    "text",
    ["", "batches", "//evil.example", "/\\evil.example", "\\\\evil.example", "///evil.example", "https://evil.example", "javascript:alert(1)", "/\t/evil.example",
     "/\n/evil.example", "/a b", "/a\\b", "/é", "/\0", "/" + "a" * 2000, " /", "/\u2028", "?next=/", "/a\n"],
    ids=lambda text: repr(text)[:30],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="path of a page of this service"):
        local_path(text)
