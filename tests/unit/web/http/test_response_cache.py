"""Responses are cached for seconds, while they are fresh, and within a limit of memory."""

from flask import Flask

from web.http.response_cache import ResponseCache, make_cached_response


def test_a_response_is_cached_while_it_is_fresh() -> None:
    cache = ResponseCache()
    cache.put(("a", "json", ""), make_cached_response(b"{}", "application/json", 100))
    cache.put(("b", "json", ""), make_cached_response(b"{}", "application/json", 0))
    found = cache.get(("a", "json", ""))
    assert found is not None
    assert found.body == b"{}"
    assert cache.get(("b", "json", "")) is None
    assert cache.get(("a", "page", "")) is None


def test_the_memory_of_all_responses_is_limited() -> None:
    cache = ResponseCache()
    response = make_cached_response(bytes(1 << 20), "text/html", 100)
    for number in range(40):
        cache.put((str(number),), response)
    assert sum(cache.get((str(number),)) is not None for number in range(40)) == 15
    cache.put(("whole",), make_cached_response(bytes(17 << 20), "text/html", 100))
    assert cache.get(("whole",)) is None


def test_a_get_says_how_long_it_is_fresh_and_a_post_does_not() -> None:
    app, cached = Flask(__name__), make_cached_response(b"{}", "application/json", 100.5)
    for method, cache_control in (("GET", "private, max-age=100"), ("HEAD", "private, max-age=100"), ("POST", None)):
        with app.test_request_context("/", method=method, headers={"If-None-Match": '"other"'}):
            response = cached.response()
        assert (response.status_code, response.headers.get("Cache-Control"), response.headers["ETag"]) == (
            200,
            cache_control,
            cached.etag,
        )
    for method, status in (("GET", 304), ("POST", 200)):
        with app.test_request_context("/", method=method, headers={"If-None-Match": cached.etag}):
            assert cached.response().status_code == status
    with app.test_request_context("/"):
        assert make_cached_response(b"", "text/html", 0).response().headers["Cache-Control"] == "private, no-cache"
