"""The OpenAPI document lists the error codes of each operation, and no codes that only others return."""

import re
from typing import Any

import pytest
from flask import Flask

from tests.support.applications import open_app
from web.http.error_codes import CODES
from web.openapi import views
from web.openapi.document import document

UNLISTED = {"method_not_allowed", "no_answer"}
"""Returned for a method that no operation has, and by nginx alone."""
EVERYWHERE = {
    "unauthorized", "misdirected_request", "uri_too_long", "headers_too_large", "internal_error", "database_unavailable", "database_misconfigured",
}  # fmt: skip


@pytest.fixture(scope="module")
def api(app: Flask) -> dict[str, Any]:
    return document(app, is_open=False)


def codes(operation: dict[str, Any]) -> set[str]:
    problems = [(int(status), response["description"]) for status, response in operation["responses"].items() if int(status) >= 400]
    listed = [(status, code) for status, text in problems for code in re.findall(r"\w+", text.removeprefix("One of: "))]
    assert all(CODES[code][0] == status for status, code in listed)
    return {code for _, code in listed}


def test_an_operation_lists_the_codes_that_it_can_return(api: dict[str, Any]) -> None:
    paths = api["paths"]
    reading = EVERYWHERE | {"invalid", "not_found", "missing_scope", "too_many_requests"}
    assert codes(paths["/image_batches/{batch_id}"]["get"]) == reading | {"query_too_slow"}
    assert codes(paths["/image_batches/{batch_id}"]["delete"]) == reading | {"foreign_origin", "foreign_store", "bad_csrf_token"}
    assert codes(paths["/healthz"]["get"]) == EVERYWHERE
    assert "image_failed" not in codes(paths["/pictures/{result_id}/{picture}.jpg"]["get"])
    assert {"commit_unknown", "idempotency_mismatch", "temporary_reduced_capacity"} <= codes(paths["/upload_image_batch"]["post"])


def test_every_code_belongs_to_an_operation(api: dict[str, Any]) -> None:
    operations = [operation for methods in api["paths"].values() for operation in methods.values()]
    assert set(CODES) - UNLISTED == set().union(*map(codes, operations))


def test_what_the_server_refuses_before_a_page_is_known_is_never_described_as_a_page(api: dict[str, Any]) -> None:
    responses = api["paths"]["/docs"]["get"]["responses"]
    assert {status for status, response in responses.items() if "text/html" not in response["content"]} == {"414", "431"}


def test_files_have_the_headers_of_conditional_requests_and_ranges(api: dict[str, Any]) -> None:
    for path in ("/uploads/{name}", "/uploads/{image_id}/{variant}.jpg", "/pictures/{result_id}/{picture}.jpg"):
        names = {parameter["name"] for parameter in api["paths"][path]["get"]["parameters"] if parameter["in"] == "header"}
        assert names == {"Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"}


def test_an_image_can_have_a_digest_in_json_and_in_a_form(api: dict[str, Any]) -> None:
    schemas = api["components"]["schemas"]
    for name in ("ImageIn", "ImageMeta"):
        assert schemas[name]["properties"]["sha256"]["anyOf"][0]["pattern"] == "^[0-9A-Fa-f]{64}$"
        assert "sha256" not in schemas[name]["required"]


def test_a_camera_is_a_number_or_a_name_of_limited_length(api: dict[str, Any]) -> None:
    image = api["components"]["schemas"]["ImageIn"]["properties"]
    name = {"type": "string", "minLength": 1, "maxLength": 200}
    assert image["camera_id"]["anyOf"] == [name, {"type": "integer"}]
    assert {part: image["store_name"][part] for part in name} == name


def test_an_annotation_has_its_stored_names(api: dict[str, Any]) -> None:
    schemas = api["components"]["schemas"]
    assert list(schemas["Annotation"]["properties"]) == schemas["Annotation"]["required"] == ["id", "label", "box", "by", "at", "from"]
    assert schemas["Annotation"]["properties"]["from"]["enum"] == ["drawn", "detection", "import"]
    assert schemas["Image"]["properties"]["annotations"]["anyOf"][0]["items"] == {"$ref": "#/components/schemas/Annotation"}
    assert set(schemas["SimilarImage"]["required"]) == {*schemas["Image"]["required"], "distance"}


def test_the_document_is_built_once_for_the_json_and_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def build(app: Flask, *, is_open: bool) -> dict[str, Any]:
        built.append(is_open)
        return document(app, is_open=is_open)

    monkeypatch.setattr(views, "document", build)
    with open_app() as app:
        client = app.test_client()
        responses = [client.get(path) for path in ("/openapi.json", "/docs", "/openapi.json")]
    assert [response.status_code for response in responses] == [200] * 3
    assert responses[0].data == responses[2].data
    assert built == [True]
