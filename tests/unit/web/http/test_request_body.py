"""What the headers of a request say of its body."""

import io

import pytest
from flask import Flask

from shared.errors import TooLarge
from web.http.body_limits import BodyBudget
from web.http.request_body import open_request_body

APP = Flask(__name__)


@pytest.mark.parametrize(
    ("content_type", "is_json", "is_form"),
    [
        (None, True, False),
        ("application/json; charset=utf-8", True, False),
        ("application/merge-patch+json", True, False),
        ("multipart/form-data; boundary=x", False, True),
        ("image/jpeg", False, False),
    ],
)
def test_a_body_without_a_media_type_is_json(content_type: str | None, *, is_json: bool, is_form: bool) -> None:
    with (
        APP.test_request_context("/", method="POST", data=b"[]", content_type=content_type),
        open_request_body(BodyBudget(10), 1) as body,
    ):
        assert (body.is_json, body.is_form, body.boundary) == (is_json, is_form, "x" if is_form else "")


@pytest.mark.parametrize(("terminated", "length", "data"), [(False, 0, b""), (True, None, b"[1]")])
def test_a_body_without_a_length_is_empty_unless_the_server_ends_it(
    *, terminated: bool, length: int | None, data: bytes
) -> None:
    environ = {"wsgi.input": io.BytesIO(b"[1]"), "wsgi.input_terminated": terminated}
    with (
        APP.test_request_context("/", method="POST", environ_overrides=environ),
        open_request_body(BodyBudget(10), 1) as body,
    ):
        assert (body.length, body.read(10)) == (length, data)


def test_a_length_above_the_limit_is_refused_before_the_body_is_read() -> None:
    with APP.test_request_context("/", method="POST", data=b"[1]"), open_request_body(BodyBudget(10), 1) as body:
        body.check_length(3)
        with pytest.raises(TooLarge):
            body.check_length(2)
