"""The OpenAPI document says who may use each operation, as the access rules of the routes do, and describes every route."""

from typing import Any

import pytest
from flask import Flask

from shared.accounts.permissions import SCOPE_MEANINGS, SCOPES
from web.http import access_rules
from web.openapi import security
from web.openapi.document import document


@pytest.fixture(scope="module")
def api(app: Flask) -> dict[str, Any]:
    return document(app, is_open=False)


def operations(api: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(security.template(path), method): operation for path, item in api["paths"].items() for method, operation in item.items()}


def test_every_route_except_static_files_is_described(app: Flask, api: dict[str, Any]) -> None:
    routes = {operation: endpoint for operation, endpoint in security.endpoints_by_operation(app).items() if endpoint != "pages.static"}
    assert set(routes) == set(operations(api))


def test_every_operation_requires_the_scope_of_its_route_with_each_kind_of_credentials(app: Flask, api: dict[str, Any]) -> None:
    endpoints = security.endpoints_by_operation(app)
    for key, operation in operations(api).items():
        rule = access_rules.rule_of(app, endpoints[key])
        expected: list[dict[str, list[str]]] = []
        alternatives: list[list[str]] = [[scope] for scope in rule.any_scopes] or [list(rule.scopes)]
        for scopes in alternatives:
            key_scopes = [rule.key_scope] if rule.key_scope else scopes
            expected += [*([] if rule.needs_session else [{"api_key": [*key_scopes]}]), {"oauth2": scopes}]
            expected.append({"session_cookie": scopes} | ({} if key[1] == "get" else {"csrf_token": []}))
        expected += [{"signed_url": []}] if rule.accepts_signature else []
        assert operation["security"] == ([] if rule.is_public else expected), key
        assert (sum(parameter["name"] in {"signature", "expires"} for parameter in operation.get("parameters", [])) == 2) == rule.accepts_signature, key
        assert "unauthorized" in operation["responses"]["401"]["x-error-codes"], key
        assert ("missing_scope" in operation["responses"].get("403", {}).get("x-error-codes", ())) == bool(rule.scopes or rule.any_scopes or rule.key_scope), key
        assert ("session_required" in operation["responses"].get("403", {}).get("x-error-codes", ())) == rule.needs_session, key


def test_the_document_names_rules_of_each_kind(api: dict[str, Any]) -> None:
    found = operations(api)
    assert found["/limits", "get"]["security"] == []
    assert found["/image_batches/{}", "delete"]["security"][0] == {"api_key": ["images:write"]}
    assert found["/upload_image_batch", "post"]["security"][1] == {"oauth2": ["images:upload"]}
    assert found["/me", "get"]["security"] == [{"api_key": []}, {"oauth2": []}, {"session_cookie": []}]
    assert found["/api_keys", "get"]["security"] == [{"api_key": ["admin"]}, {"oauth2": []}, {"session_cookie": []}]
    assert found["/logout", "post"]["security"] == [{"oauth2": []}, {"session_cookie": [], "csrf_token": []}]


def headers_of(operation: dict[str, Any]) -> dict[str, set[str]]:
    """Return the names of the headers about quotas in the responses of an operation by status, except those of the server itself."""
    named = {"RateLimit", "RateLimit-Policy"}
    return {status: named & set(response.get("headers", ())) for status, response in operation["responses"].items() if status not in {"414", "431"}}


def test_operations_that_count_requests_describe_the_headers_and_the_refusal(app: Flask, api: dict[str, Any]) -> None:
    endpoints = security.endpoints_by_operation(app)
    for key, operation in operations(api).items():
        is_counted = access_rules.rule_of(app, endpoints[key]).counts_as is not None
        expected = {"RateLimit", "RateLimit-Policy"} if is_counted else set()
        assert all(names == expected for names in headers_of(operation).values()), key
        assert ("too_many_requests" in operation["responses"].get("429", {}).get("x-error-codes", ())) == is_counted, key
    assert set(api["components"]["headers"]) == {"RateLimit", "RateLimit-Policy"}


def test_while_access_is_open_only_inspections_are_counted(app: Flask) -> None:
    found = operations(document(app, is_open=True))
    counted = {key for key, operation in found.items() if any(headers_of(operation).values())}
    assert counted == {("/img", "post"), ("/", "get")}


def test_while_access_is_open_credentials_are_optional(app: Flask) -> None:
    found = operations(document(app, is_open=True))
    assert found["/image_batches", "get"]["security"] == [{}, {"api_key": ["images:read"]}, {"oauth2": ["images:read"]}, {"session_cookie": ["images:read"]}]
    assert found["/limits", "get"]["security"] == []


def test_every_scope_has_a_meaning_and_names_its_roles(api: dict[str, Any]) -> None:
    schemes = api["components"]["securitySchemes"]
    flow = schemes["oauth2"]["flows"]["password"]
    assert set(flow["scopes"]) == set(SCOPE_MEANINGS) == set(SCOPES)
    assert flow["scopes"]["images:write"] == f"{SCOPE_MEANINGS['images:write']} Roles: uploader, admin."
    assert (flow["tokenUrl"], flow["refreshUrl"]) == ("/login", "/refresh")
    assert (schemes["api_key"]["type"], schemes["api_key"]["scheme"]) == ("http", "bearer")
    assert [schemes["session_cookie"][name] for name in ("type", "in", "name")] == ["apiKey", "cookie", "shelfsight_session"]
    assert [schemes["csrf_token"][name] for name in ("type", "in", "name")] == ["apiKey", "header", "X-CSRF-Token"]


def test_a_scope_that_is_missing_is_a_page_where_other_errors_are(api: dict[str, Any]) -> None:
    found = operations(api)
    assert set(found["/batches/{}", "get"]["responses"]["403"]["content"]) == {"application/problem+json", "text/html"}
    assert set(found["/image_batches/{}", "get"]["responses"]["403"]["content"]) == {"application/problem+json"}


def test_where_credentials_are_missing_every_get_operation_can_be_the_page_to_sign_in(app: Flask, api: dict[str, Any]) -> None:
    both = {"application/problem+json", "text/html"}
    for key, operation in operations(api).items():
        if operation["security"]:
            assert (set(operation["responses"]["401"]["content"]) == both) == (key[1] == "get"), key
    assert set(operations(document(app, is_open=True))["/me", "get"]["responses"]["401"]["content"]) == {"application/problem+json"}


def test_what_changes_something_can_lack_a_csrf_token_unless_it_is_public(api: dict[str, Any]) -> None:
    for key, operation in operations(api).items():
        codes = operation["responses"].get("403", {}).get("x-error-codes", ())
        assert ("bad_csrf_token" in codes) == (key[1] != "get" and operation["security"] != []), key


def test_a_scope_that_is_missing_is_added_to_the_codes_of_the_operation(api: dict[str, Any]) -> None:
    refused = operations(api)["/image_batches/{}", "delete"]["responses"]["403"]
    assert refused["x-error-codes"] == ["missing_scope", "foreign_store", "bad_csrf_token", "foreign_origin"]
    assert refused["description"] == "One of: missing_scope, foreign_store, bad_csrf_token, foreign_origin"


def test_an_operation_without_a_route_is_an_error(app: Flask) -> None:
    operation: dict[str, Any] = {"responses": {}}
    with pytest.raises(ValueError, match="get /nowhere"):
        security.describe_access({"/nowhere": {"get": operation}}, app, is_open=False)
    with pytest.raises(ValueError, match="put /limits"):
        security.describe_access({"/limits": {"put": operation}}, app, is_open=False)
