"""Error pages: texts for every error of an inspection, and the choice between a page and JSON."""

import re

import pytest
from flask import Flask, render_template, request

from web.http import responses
from web.http.error_codes import CODES, INSPECTION_CODES
from web.openapi import document as openapi
from web.pages.error_pages import ERROR_PAGES


def documented(app: Flask, path: str) -> set[str]:
    """Return the error codes for which the path can return a page."""
    responses_of_path = openapi.document(app, is_open=True)["paths"][path]["get"]["responses"]
    descriptions = " ".join(response["description"] for status, response in responses_of_path.items() if int(status) >= 400 and "text/html" in response["content"])
    return {code for code in CODES if re.search(rf"\b{code}\b", descriptions)}


def test_every_error_of_an_inspection_has_a_title_and_advice(app: Flask) -> None:
    assert set(ERROR_PAGES) <= set(CODES)
    assert set(ERROR_PAGES) >= INSPECTION_CODES
    assert documented(app, "/") <= set(ERROR_PAGES)


def test_titles_and_advice_are_sentences_without_identifiers() -> None:
    for page in ERROR_PAGES.values():
        assert page.title[0].isupper()
        assert page.advice.endswith(".")
        assert "_" not in page.title + page.advice


@pytest.mark.parametrize(
    ("path", "accept", "page"),
    [
        ("/", "", True),
        ("/", "*/*", True),
        ("/", "application/json", False),
        ("/", "application/json, text/html;q=0.9", False),
        ("/", "application/problem+json", False),
        ("/", "application/problem+json, text/html;q=0.9", False),
        ("/", "text/html, application/problem+json;q=0.9", True),
        ("/inspections/x", "application/problem+json, text/html;q=0.9", False),
        ("/", "text/html;q=0.5, application/json;q=0.4", True),
        ("/", "image/png", True),
        ("/inspections/x", "", False),
        ("/inspections/x", "*/*", False),
        ("/inspections/x", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("/inspections/x", "application/json;q=0.1, text/html;q=0", False),
    ],
)
def test_accept_chooses_between_a_page_and_json(app: Flask, path: str, accept: str, *, page: bool) -> None:
    with app.test_request_context(path, headers={"Accept": accept} if accept else {}):
        assert responses.prefers_html() is page


def test_a_page_escapes_what_the_client_sent(app: Flask) -> None:
    evil = "\"><script>alert('1')</script>"
    problem = {"detail": evil, "errors": [{"pointer": f"/{evil}", "detail": evil}], "status": 422, "code": "invalid", "request_id": evil}
    with app.test_request_context("/"):
        assert request.path == "/"
        page = render_template("error.html", title="Invalid request", advice="Try again.", problem=problem, url=evil)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 5
