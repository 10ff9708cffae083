"""Describe who may use each operation, from the access rules of the routes (``web.http.access_rules``)."""

import re
from collections.abc import Mapping
from typing import Any, Final

from flask import Flask

from shared.accounts.permissions import ROLES, SCOPES, Scope
from web.http import access_rules
from web.http.openapi_components import with_code

MEANINGS: Final[Mapping[Scope, str]] = {
    "images:read": "See batches and images with their results, download files, and inspect single images.",
    "images:upload": "Upload batches of images.",
    "images:write": "Change and delete batches and images.",
    "originals:read": "Download originals in stores whose policy is to blur images.",
    "tags:write": "Create, change and delete tags and annotations.",
    "exports:read": "Create and download exports.",
    "webhooks:write": "Create, change and delete webhooks.",
    "metrics:read": "Read the metrics.",
    "admin": "Manage users, invitations, the API keys of others and the service, and read the audit log.",
}
"""What each scope permits."""
_API_KEY: Final = "api_key"
_OAUTH2: Final = "oauth2"
_PARAMETER: Final = re.compile(r"<[^<>]*>|\{[^{}]*\}")


def schemes() -> dict[str, Any]:
    """Return the security schemes of the document."""
    scopes = {scope: f"{MEANINGS[scope]} Roles: {', '.join(role for role in ROLES if scope in ROLES[role])}." for scope in SCOPES}
    return {
        _API_KEY: {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key. An operation that does not name this scheme is refused to API keys; it needs a person.",
        },
        _OAUTH2: {
            "type": "oauth2",
            "description": "The access token of a person, for a user name and a password. Its scopes are those of the user.",
            "flows": {"password": {"tokenUrl": "/login", "refreshUrl": "/refresh", "scopes": scopes}},
        },
    }


def describe_access(paths: dict[str, Any], app: Flask, *, is_open: bool) -> dict[str, Any]:
    """Return the path items of the document, to whose operations the credentials and the scopes that they need are added.

    :param is_open: whether requests without credentials are permitted everywhere.
    :raises ValueError: when an operation has no route.
    """
    endpoints = endpoints_by_operation(app)
    described: dict[str, Any] = {}
    for path, item in paths.items():
        described[path] = {}
        for method, operation in item.items():
            endpoint = endpoints.get((template(path), method))
            if endpoint is None:
                raise ValueError(f"The document describes {method} {path}, for which there is no route.")
            described[path][method] = _with_rule(operation, access_rules.rule_of(app, endpoint), is_open=is_open)
    return described


def endpoints_by_operation(app: Flask) -> dict[tuple[str, str], str]:
    """Return the endpoint of each path and method. The paths are templates, and the methods are in lower case.

    HEAD and OPTIONS are left out, because every path supports them (OPTIONS) or every path with GET does (HEAD).
    """
    return {
        (template(rule.rule), method.lower()): rule.endpoint
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def template(path: str) -> str:
    """Return a path of the document or of a route with ``{}`` for each parameter.

    The names of the parameters differ between routes and the document.
    """
    return _PARAMETER.sub("{}", path)


def _with_rule(operation: dict[str, Any], rule: access_rules.AccessRule, *, is_open: bool) -> dict[str, Any]:
    if rule.is_public:
        return operation | {"security": []}
    of_person = [rule.scope] if rule.scope else []
    of_key = [rule.key_scope] if rule.key_scope else of_person
    requirements: list[dict[str, Any]] = [*([] if rule.needs_session else [{_API_KEY: of_key}]), {_OAUTH2: of_person}]
    anonymous: list[dict[str, Any]] = [{}] if is_open else []  # an empty requirement means that credentials are optional
    responses = operation["responses"]
    if rule.scope or rule.key_scope:
        responses = with_code(responses, "missing_scope")
    if rule.needs_session:
        responses = with_code(responses, "session_required")
    return operation | {"security": [*anonymous, *requirements], "responses": responses}
