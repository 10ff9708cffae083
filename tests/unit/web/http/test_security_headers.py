"""The headers that restrict what a browser does with a response."""

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared.settings import Logging, Settings
from web import pages
from web.app import create_app

PAGES = Path(pages.__file__).parent


@pytest.fixture(name="web", scope="module")
def make_web() -> FlaskClient:
    return create_app(Settings(log=Logging(level="CRITICAL"))).test_client()


def test_a_page_loads_and_sends_only_from_and_to_this_service(web: FlaskClient) -> None:
    response = web.get("/login")
    policy = dict(directive.split(" ", 1) for directive in response.headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_no_template_needs_more_than_the_policy_permits() -> None:
    forbidden = re.compile(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|javascript:|<(iframe|object|embed|base)\b|(?:src|action)=\"https?:", re.IGNORECASE)
    found = {path.name: forbidden.findall(path.read_text()) for path in (PAGES / "templates").rglob("*.html")}
    assert len(found) > 10
    assert {name: uses for name, uses in found.items() if uses} == {}


def test_no_address_of_this_service_is_told_to_other_sites(web: FlaskClient) -> None:
    for path in ("/login", "/limits", "/docs", "/no"):
        assert web.get(path).headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/login", "/limits", "/healthz", "/docs"])
def test_under_https_browsers_are_told_to_stay_with_it(web: FlaskClient, path: str) -> None:
    assert web.get(path, base_url="https://localhost").headers["Strict-Transport-Security"] == "max-age=31536000"
    assert "Strict-Transport-Security" not in web.get(path).headers
    forged = web.get(path, headers={"X-Forwarded-Proto": "https"})  # not from a trusted proxy
    assert "Strict-Transport-Security" not in forged.headers
