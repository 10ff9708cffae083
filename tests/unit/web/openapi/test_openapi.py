"""The OpenAPI document lists the error codes of each operation, and no codes that only others return."""

import re
from typing import Any

import pytest
from flask import Flask
from pydantic import BaseModel

from shared.augmentations import AUGMENTATIONS
from tests.support.applications import open_app
from web.admin.schemas import DeadLetterRetry
from web.http.error_codes import CODES
from web.openapi import views
from web.openapi.document import document
from web.receipts.schemas import ClaimedReceipt
from web.reprocessing.schemas import BulkReprocessing
from web.reprocessing_options import Reprocessing

UNLISTED = {"method_not_allowed", "no_answer"}
"""Returned for a method that no operation has, and by nginx alone."""
EVERYWHERE = {
    "unauthorized", "misdirected_request", "uri_too_long", "headers_too_large", "internal_error", "database_unavailable", "database_misconfigured",
}  # fmt: skip


@pytest.fixture(scope="module")
def api(app: Flask) -> dict[str, Any]:
    return document(app, is_open=False)


def operations(api: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(path, operation) for path, methods in api["paths"].items() for operation in methods.values()]


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
    assert set(CODES) - UNLISTED == set().union(*(codes(operation) for _, operation in operations(api)))


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


def test_a_summary_is_short(api: dict[str, Any]) -> None:
    summaries = [operation["summary"] for _, operation in operations(api)]
    assert [summary for summary in summaries if len(summary) > 120] == []


def test_the_life_of_a_batch_has_summaries_of_one_phrase(api: dict[str, Any]) -> None:
    about = re.compile("/admin/|/reprocess$|/cancel$|/timeline$|/receipt$|^/receipts/")
    found = [operation["summary"] for path, operation in operations(api) if about.search(path)]
    assert len(found) == 13
    assert [summary for summary in found if "." in summary] == []


def test_the_events_of_a_timeline_are_told_apart_by_their_types(api: dict[str, Any]) -> None:
    schemas = api["components"]["schemas"]
    events = schemas["Timeline"]["properties"]["events"]["items"]
    mapping = events["discriminator"]["mapping"]
    assert (events["discriminator"]["propertyName"], sorted(mapping.values())) == ("type", sorted(one["$ref"] for one in events["oneOf"]))
    assert set(mapping) == {"received", "attempt", "reprocess_requested", "cancelled", "corrected", "annotated", "tagged", "untagged"}


def test_a_retry_has_either_ids_or_filters(api: dict[str, Any]) -> None:
    schema = api["components"]["schemas"]["DeadLetterRetry"]
    assert schema["oneOf"] == [{"required": ["ids"]}, {"required": ["filters"]}]
    assert (schema["properties"]["ids"]["minItems"], schema["properties"]["ids"]["maxItems"]) == (1, 1000)
    assert [schema["properties"][name]["type"] for name in ("ids", "filters")] == ["array", "object"]


@pytest.mark.parametrize("name", ["Reprocessing", "BulkReprocessing"])
def test_a_reprocessing_names_the_augmentations(api: dict[str, Any], name: str) -> None:
    augmentations = api["components"]["schemas"][name]["properties"]["augmentations"]
    assert augmentations["anyOf"][0]["items"]["enum"] == list(AUGMENTATIONS)
    assert "empty list means none" in augmentations["description"]


@pytest.mark.parametrize("model", [Reprocessing, BulkReprocessing, DeadLetterRetry, ClaimedReceipt])
def test_the_examples_of_bodies_are_valid(api: dict[str, Any], model: type[BaseModel]) -> None:
    examples = api["components"]["schemas"][model.__name__]["examples"]
    assert [model.model_validate(example).model_dump(exclude_unset=True) for example in examples] == examples


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
