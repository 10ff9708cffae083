"""Every problem that a picture's page may have says of its own what to do."""

import re

import pytest
from flask import Flask, render_template, request

from shared.settings import Logging, Settings
from web.app import create_app
from web.batches import serializers
from web.http.error_codes import CODES, OF_SOURCES
from web.openapi import document as openapi
from web.pages.error_pages import EDGES


@pytest.fixture(scope="module")
def app() -> Flask:
    return create_app(Settings(log=Logging(level="CRITICAL")))


def documented(path: str) -> set[str]:
    answers = openapi.document()["paths"][path]["get"]["responses"]
    said = " ".join(answer["description"] for status, answer in answers.items() if int(status) >= 400)
    return {code for code in CODES if re.search(rf"\b{code}\b", said)}


def test_every_code_of_looking_at_a_picture_has_its_texts() -> None:
    assert set(EDGES) <= set(CODES)
    assert set(EDGES) >= OF_SOURCES
    assert documented("/") <= set(EDGES)


def test_titles_and_advice_are_sentences_for_people() -> None:
    for edge in EDGES.values():
        assert edge.title[0].isupper()
        assert edge.advice.endswith(".")
        assert "_" not in edge.title + edge.advice


@pytest.mark.parametrize(
    ("path", "accept", "page"),
    [
        ("/", "", True),
        ("/", "*/*", True),
        ("/", "application/json", False),
        ("/", "application/json, text/html;q=0.9", False),
        ("/", "text/html;q=0.5, application/json;q=0.4", True),
        ("/", "image/png", True),
        ("/inspections/x", "", False),
        ("/inspections/x", "*/*", False),
        ("/inspections/x", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("/inspections/x", "application/json;q=0.1, text/html;q=0", False),
    ],
)
def test_who_gets_a_page(app: Flask, path: str, accept: str, *, page: bool) -> None:
    with app.test_request_context(path, headers={"Accept": accept} if accept else {}):
        assert serializers.wants_page() is page


def test_a_page_shows_what_is_not_ours_as_text(app: Flask) -> None:
    evil = "\"><script>alert('1')</script>"
    problem = {"detail": evil, "errors": [{"pointer": f"/{evil}", "detail": evil}], "status": 422, "code": "invalid", "request_id": evil}
    with app.test_request_context("/"):
        assert request.path == "/"
        page = render_template("error.html", edge=EDGES["invalid"], problem=problem, url=evil, reload_s=None)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 5
