"""The page of the API shows who may use each operation, and can be used under the content security policy."""

import re
from pathlib import PurePosixPath

import pytest
from flask import Flask

from shared.settings import Access
from tests.support.applications import open_app
from web.openapi.document import document

SIGNING_KEYS = '{"1": "0123456789abcdefghijklmnopqrstuvwxyz"}'


@pytest.fixture(scope="module")
def page(app: Flask) -> str:
    return app.test_client().get("/docs").text


def test_each_operation_can_be_tried(app: Flask, page: str) -> None:
    operations = {(path, method) for path, item in document(app, is_open=True)["paths"].items() for method in item}
    tried = re.findall(r'<details class="try" data-path="([^"]+)" data-method="([^"]+)"', page)
    assert (set(tried), len(tried)) == (operations, len(operations))


def test_each_operation_shows_who_may_use_it(page: str) -> None:
    operation = r'<code>(/[^<]+)</code> [^<]+<span class="scope">([^<]+)</span></summary>.*?<p class="small">(.*?)</p>(?:\s*<p class="lacking" ([^<>]*) hidden>([^<]*)</p>)?'
    shown = {path: found for path, *found in re.findall(operation, page, re.DOTALL)}
    assert shown["/limits"] == ["public", "This operation needs no credentials.", "", ""]
    assert shown["/me"] == ["any credentials", "Requires credentials, but no particular scope.", "", ""]
    assert shown["/metrics"] == ["metrics:read", "Requires the scope <code>metrics:read</code>: Read the metrics.", 'data-lacking="metrics:read"', "Your credentials lack this scope."]
    assert shown["/logout"] == [
        "person only", "Requires the access token of a person who has signed in. API keys are refused.", 'data-lacking="" data-of="keys"', "You use an API key; sign in instead."
    ]  # fmt: skip
    label, sentence, *warning = shown["/api_keys"]
    assert (label, *warning) == ("person, or key with admin", 'data-lacking="admin" data-of="keys"', "Your API key lacks this scope.")
    assert sentence.startswith("Requires the access token of a person, who needs no particular scope, or an API key with the scope <code>admin</code>: Manage users,")


def test_it_has_no_script_no_style_and_no_handler_of_its_own(page: str) -> None:
    tags = re.findall(r"<[a-z][^>]*>", page)
    assert len(tags) > 500
    assert not [tag for tag in tags if re.search(r"\s(on[a-z]+|style)=", tag)]
    assert not [tag for tag in tags if tag.startswith(("<style", "<script")) and " src=" not in tag]


def test_its_modules_import_only_each_other(app: Flask, page: str) -> None:
    client = app.test_client()
    found = re.findall(r'<script type="module" src="([^"]+)">', page)
    for path in found:
        response = client.get(path, buffered=True)  # reads and closes the file
        assert (response.status_code, response.mimetype) == (200, "text/javascript")
        imported = {str(PurePosixPath(path).parent / name) for name in re.findall(r"from '\./([a-z]+\.js)';", response.text)}
        assert len(re.findall(r"^import ", response.text, re.MULTILINE)) == len(imported)
        found += imported - set(found)
    assert len(found) > 1


@pytest.mark.parametrize(("access", "sentence"), [("off", "Access is open: no credentials are needed"), ("on", "Sign in or enter an API key")])
def test_it_says_whether_credentials_are_needed(access: str, sentence: str) -> None:
    with open_app(Access.model_validate({"access": access, "signing_keys": SIGNING_KEYS})) as app:
        assert sentence in app.test_client().get("/docs").text
