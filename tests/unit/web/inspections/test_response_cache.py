"""Answers are kept for a moment: while they are fresh, and within bounds."""

from flask import Flask

from web.inspections import response_cache
from web.inspections.response_cache import Answers


def test_an_answer_is_kept_while_it_is_fresh() -> None:
    kept = Answers()
    kept.keep(("a", "json", ""), response_cache.make(b"{}", "application/json", 100))
    kept.keep(("b", "json", ""), response_cache.make(b"{}", "application/json", 0))
    found = kept.get(("a", "json", ""))
    assert found is not None
    assert found.body == b"{}"
    assert kept.get(("b", "json", "")) is None
    assert kept.get(("a", "page", "")) is None


def test_what_all_take_is_bounded() -> None:
    kept = Answers()
    one = response_cache.make(bytes(1 << 20), "text/html", 100)
    for number in range(40):
        kept.keep((str(number),), one)
    assert sum(kept.get((str(number),)) is not None for number in range(40)) == 15
    kept.keep(("whole",), response_cache.make(bytes(17 << 20), "text/html", 100))
    assert kept.get(("whole",)) is None


def test_a_get_says_how_long_it_is_good_and_a_post_does_not() -> None:
    app, answer = Flask(__name__), response_cache.make(b"{}", "application/json", 100.5)
    for method, cache in (("GET", "private, max-age=100"), ("HEAD", "private, max-age=100"), ("POST", None)):
        with app.test_request_context("/", method=method, headers={"If-None-Match": '"other"'}):
            said = answer.response()
        assert (said.status_code, said.headers.get("Cache-Control"), said.headers["ETag"]) == (200, cache, answer.etag)
    for method, status in (("GET", 304), ("POST", 200)):
        with app.test_request_context("/", method=method, headers={"If-None-Match": answer.etag}):
            assert answer.response().status_code == status
    with app.test_request_context("/"):
        assert response_cache.make(b"", "text/html", 0).response().headers["Cache-Control"] == "private, no-cache"
