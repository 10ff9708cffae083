"""The headers about quotas have the syntax of structured fields and say what the quotas and the usages are."""

import pytest
from flask import Flask, g
from hypothesis import given
from hypothesis import strategies as st

from tests.support.structured_fields import parse_list
from web.http import problems, rate_limit_headers
from web.http.rate_limits import QuotaPolicy, RateExceeded, Usage

NAMES = st.from_regex(r"[a-z][a-z-]{0,30}\Z", fullmatch=True)
NUMBERS = st.integers(1, 999_999_999_999)
USAGES = st.builds(Usage, st.builds(QuotaPolicy, NAMES, NUMBERS, NUMBERS), st.booleans(), st.integers(0, 999_999_999_999), NUMBERS, st.booleans())


@given(st.lists(USAGES, min_size=1, max_size=4))
def test_the_fields_are_lists_with_the_quotas_and_what_remains(usages: list[Usage]) -> None:
    policies = [(usage.policy.name, {"q": usage.policy.quota, "w": usage.policy.window_s}) for usage in usages]
    assert parse_list(rate_limit_headers.policy_field(usages)) == policies
    limits = [(usage.policy.name, {"r": usage.remaining, "t": usage.reset_s}) for usage in usages]
    assert parse_list(rate_limit_headers.limit_field(usages)) == limits


def test_the_fields_look_as_in_the_draft() -> None:
    usages = [Usage(QuotaPolicy("user", 6000, 60), is_admitted=True, remaining=5999, reset_s=31, is_shared=True)]
    assert rate_limit_headers.policy_field(usages) == '"user";q=6000;w=60'
    assert rate_limit_headers.limit_field(usages) == '"user";r=5999;t=31'


@pytest.mark.parametrize("text", ["user;q=1", '"user" ;q=1', '"user";q=1,', '"user";q=1.5', '"user";Q=1', '"us"er"', '"user";q=1 "b"', ""])
def test_the_parser_of_these_tests_is_strict(text: str) -> None:
    with pytest.raises(ValueError, match=r"There is no"):
        parse_list(text)


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)

    @app.before_request
    def set_request_id() -> None:
        g.request_id = "r-1"

    problems.install(app)
    rate_limit_headers.install(app)
    return app


def usage(name: str, *, is_admitted: bool) -> Usage:
    return Usage(QuotaPolicy(name, 5, 60), is_admitted, remaining=4 if is_admitted else 0, reset_s=7, is_shared=True)


def test_a_response_shows_all_quotas_that_were_counted(app: Flask) -> None:
    @app.get("/")
    def view() -> str:
        for name in ("first", "second"):
            rate_limit_headers.show(usage(name, is_admitted=True))
        assert not rate_limit_headers.is_refused()
        return "done"

    headers = app.test_client().get("/").headers
    assert (headers["RateLimit-Policy"], headers["RateLimit"]) == ('"first";q=5;w=60, "second";q=5;w=60', '"first";r=4;t=7, "second";r=4;t=7')


def test_a_response_to_a_request_that_was_not_counted_has_no_headers(app: Flask) -> None:
    app.add_url_rule("/", view_func=lambda: "done")
    headers = app.test_client().get("/").headers
    assert "RateLimit" not in headers
    assert "RateLimit-Policy" not in headers


def test_a_refusal_has_the_headers_and_retry_after(app: Flask) -> None:
    @app.get("/")
    def view() -> str:
        rate_limit_headers.show(usage("first", is_admitted=True))
        raise RateExceeded("Too many", usage("second", is_admitted=False))

    response = app.test_client().get("/")
    assert (response.status_code, response.get_json()["code"], response.headers["Retry-After"]) == (429, "too_many_requests", "7")
    assert response.headers["RateLimit"] == '"first";r=4;t=7, "second";r=0;t=7'
