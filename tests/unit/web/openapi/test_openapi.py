"""The OpenAPI document lists the error codes of each operation, and no codes that only others return."""

import re
from typing import Any

from web.http.error_codes import CODES
from web.openapi import document as openapi

SERVER_CODES = {"method_not_allowed", "uri_too_long", "headers_too_large", "no_answer"}
"""Returned before a request reaches an operation."""


def codes(operation: dict[str, Any]) -> set[str]:
    problems = [(int(status), response["description"]) for status, response in operation["responses"].items() if int(status) >= 400]
    listed = [(status, code) for status, text in problems for code in re.findall(r"\w+", text.removeprefix("One of: "))]
    assert all(CODES[code][0] == status for status, code in listed)
    return {code for _, code in listed}


def test_an_operation_lists_the_codes_that_it_can_return() -> None:
    paths = openapi.document()["paths"]
    reading = {"unauthorized", "misdirected_request", "invalid", "not_found", "database_unavailable", "database_misconfigured"}
    assert codes(paths["/image_batches/{batch_id}"]["get"]) == reading | {"query_too_slow"}
    assert codes(paths["/image_batches/{batch_id}"]["delete"]) == reading | {"foreign_origin"}
    assert codes(paths["/healthz"]["get"]) == {"unauthorized", "misdirected_request"}
    assert "image_failed" not in codes(paths["/pictures/{result_id}/{picture}.jpg"]["get"])
    assert {"commit_unknown", "idempotency_mismatch"} <= codes(paths["/upload_image_batch"]["post"])


def test_every_code_belongs_to_an_operation() -> None:
    operations = [operation for methods in openapi.document()["paths"].values() for operation in methods.values()]
    assert set(CODES) - SERVER_CODES == set().union(*map(codes, operations))


def test_a_camera_is_a_number_or_a_name_of_limited_length() -> None:
    image = openapi.document()["components"]["schemas"]["ImageIn"]["properties"]
    name = {"type": "string", "minLength": 1, "maxLength": 200}
    assert image["camera_id"]["anyOf"] == [name, {"type": "integer"}]
    assert {part: image["store_name"][part] for part in name} == name
