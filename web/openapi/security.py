"""Describe who may use each operation, from the access rules of the routes (``web.http.access_rules``)."""

import re
from typing import Any, Final

from flask import Flask

from shared.accounts.permissions import ROLES, SCOPE_MEANINGS, SCOPES
from web.http import access_rules, session_cookie
from web.http.authentication import CSRF_HEADER
from web.http.openapi_components import or_html, parameter, with_code, with_rate_limit

_API_KEY: Final = "api_key"
_OAUTH2: Final = "oauth2"
_SIGNED_URL: Final = "signed_url"
_SESSION_COOKIE: Final = "session_cookie"
_CSRF: Final = "csrf_token"
_SIGNATURE: Final = [
    parameter("signature", {"type": "string", "description": "Part of a URL from a response: permits the request without other credentials."}),
    # no integer, because it is not read if the request has other credentials
    parameter("expires", {"type": "string", "description": "Part of a URL from a response: the time in Unix seconds until which the signature is valid."}),
]
_PARAMETER: Final = re.compile(r"<[^<>]*>|\{[^{}]*\}")


def schemes() -> dict[str, Any]:
    """Return the security schemes of the document."""
    scopes = {scope: f"{SCOPE_MEANINGS[scope]} Roles: {', '.join(role for role in ROLES if scope in ROLES[role])}." for scope in SCOPES}
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
        _SESSION_COOKIE: {
            "type": "apiKey",
            "in": "cookie",
            "name": session_cookie.PLAIN_NAME,
            "description": f"The cookie that POST /sessions sets in the browser of a person. Under HTTPS, its name is {session_cookie.SECURE_NAME}.",
        },
        _CSRF: {
            "type": "apiKey",
            "in": "header",
            "name": CSRF_HEADER,
            "description": 'The token in `<meta name="csrf-token">` of a page of the same session. An operation that changes something needs it together with the cookie.',
        },
        _SIGNED_URL: {
            "type": "apiKey",
            "in": "query",
            "name": "signature",
            "description": "A URL from a response, with its `signature` and `expires` parameters. It is valid for all files of one image.",
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
            described[path][method] = _with_rule(method, operation, access_rules.rule_of(app, endpoint), is_open=is_open)
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


def _with_rule(method: str, operation: dict[str, Any], rule: access_rules.AccessRule, *, is_open: bool) -> dict[str, Any]:
    responses = operation["responses"]
    if rule.counts_as is not None and not is_open:
        responses = with_rate_limit(with_code(responses, "too_many_requests"))
    if rule.is_public:
        return operation | {"security": [], "responses": responses}
    requirements: list[dict[str, Any]] = []
    for of_person in [[scope] for scope in rule.any_scopes] or [list(rule.scopes)]:
        of_key = [rule.key_scope] if rule.key_scope else of_person
        requirements += [*([] if rule.needs_session else [{_API_KEY: of_key}]), {_OAUTH2: of_person}]
        requirements.append({_SESSION_COOKIE: of_person} | ({} if method == "get" else {_CSRF: []}))
    if rule.accepts_signature:
        requirements.append({_SIGNED_URL: []})
        operation = operation | {"parameters": [*operation.get("parameters", []), *_SIGNATURE]}
    anonymous: list[dict[str, Any]] = [{}] if is_open else []  # an empty requirement means that credentials are optional
    if rule.scopes or rule.any_scopes or rule.key_scope:
        responses = with_code(responses, "missing_scope")
    if rule.needs_session:
        responses = with_code(responses, "session_required")
    if method != "get":
        responses = with_code(responses, "bad_csrf_token")
    elif not is_open:
        responses = responses | or_html({"401": responses["401"]})  # the page to sign in
    return operation | {"security": [*anonymous, *requirements], "responses": responses}
