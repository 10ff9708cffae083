"""The OpenAPI description of sign-up, sign-in, users, invitations, and API keys."""

from typing import Any, Final

from pydantic import BaseModel

from shared.accounts.users import USERNAME_PATTERN
from shared.ids import BATCH_ID_PATTERN
from web.accounts import response_schemas, schemas
from web.http.openapi_components import (
    JSON_BODY_CODES,
    json_content,
    paging_parameters,
    parameter,
    problem_responses,
    ref,
)

MODELS: Final[tuple[type[BaseModel], ...]] = (
    schemas.SignUp, schemas.Credentials, schemas.RefreshToken, schemas.SignOut, schemas.PasswordChange, schemas.PasswordReset,
    schemas.NewApiKey, schemas.UserChange, schemas.NewInvitation, schemas.Nothing,
    response_schemas.Tokens, response_schemas.Me, response_schemas.User, response_schemas.UserPage,
    response_schemas.CreatedApiKey, response_schemas.ApiKeyPage,
    response_schemas.CreatedInvitation, response_schemas.InvitationPage, response_schemas.PasswordLink,
)  # fmt: skip
_USERNAME: Final = parameter("username", {"type": "string", "pattern": f"^{USERNAME_PATTERN}$"}, where="path")
_KEY_ID: Final[dict[str, Any]] = {"type": "string", "pattern": "^[0-9a-z]{16}$"}
_PAGING: Final = paging_parameters({"type": "string", "pattern": f"^{BATCH_ID_PATTERN}$"})
_EMPTY: Final = {"204": {"description": "Done"}}
_COOKIE: Final = {"204": {"description": "The session cookie", "headers": {"Set-Cookie": {"schema": {"type": "string"}}}}}
"""The response to a browser. The header is in each response with this status: ``POST /me/password`` sends none to programs."""


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for accounts."""
    return {
        "/signup": {"post": _with_body("signUp", "Create a user", "SignUp", {"201": json_content("The user", "User")}, "signup_closed", "bad_link", "already_exists")},
        "/login": {"post": _sign_in()},
        "/sessions": {"post": _with_body("startSession", "Sign in with a browser: get a session cookie", "Credentials", _COOKIE, "bad_credentials", "signing_keys_missing")},
        "/refresh": {"post": _with_body("refreshTokens", "Use a refresh token: get a new access token and the next refresh token", "RefreshToken", _tokens(), "signing_keys_missing")},
        "/logout": {"post": _with_body("signOut", "End one session or all sessions", "SignOut", _EMPTY, required=False)},
        "/me": {"get": _without_body("getMe", "Get who makes the request, and what they may do", [], {"200": json_content("The principal of the request", "Me")}, "invalid")},
        "/me/password": {
            "post": _with_body(
                "changePassword", "Set a new password, end all sessions, and start a new one", "PasswordChange", _tokens() | _COOKIE, "wrong_password", "signing_keys_missing"
            )
        },
        "/reset_password": {"post": _with_body("resetPassword", "Set a new password with a one-time link, and end all sessions", "PasswordReset", _EMPTY, "bad_link")},
        "/users": {"get": _without_body("listUsers", "List users, newest first", _PAGING, {"200": json_content("A page of users", "UserPage")}, "invalid", "bad_cursor", "query_too_slow")},
        "/users/{username}": {
            "patch": _with_body(
                "changeUser", "Change the role, the stores, or the state of a user", "UserChange", {"200": json_content("The user", "User")},
                "not_found", "exceeds_rights", "last_admin", parameters=[_USERNAME], required=False,
            )
        },
        "/users/{username}/reset_password": {
            "post": _with_body(
                "offerNewPassword", "Create a one-time link that sets a new password", "Nothing", {"201": json_content("The link", "PasswordLink")},
                "not_found", "exceeds_rights", parameters=[_USERNAME], required=False,
            )
        },
        "/invitations": {
            "get": _without_body("listInvitations", "List open invitations, newest first", _PAGING, {"200": json_content("A page of invitations", "InvitationPage")}, "invalid", "bad_cursor", "query_too_slow"),
            "post": _with_body("invite", "Create a one-time link with which a new user can sign up", "NewInvitation", {"201": json_content("The invitation", "CreatedInvitation")}, "signup_closed", "exceeds_rights"),
        },
        "/api_keys": {
            "get": _without_body("listApiKeys", "List API keys", paging_parameters(_KEY_ID), {"200": json_content("A page of API keys", "ApiKeyPage")}, "invalid", "bad_cursor", "query_too_slow"),
            "post": _with_body("createApiKey", "Create an API key", "NewApiKey", {"201": json_content("The key", "CreatedApiKey")}, "exceeds_rights", "too_many_keys"),
        },
        "/api_keys/{key_id}": {"delete": _without_body("deleteApiKey", "Delete an API key", [parameter("key_id", _KEY_ID, where="path")], _EMPTY, "foreign_origin", "invalid", "not_found")},
    }  # fmt: skip


def _tokens() -> dict[str, Any]:
    return {"200": json_content("The tokens", "Tokens")}


def _sign_in() -> dict[str, Any]:
    operation = _with_body("signIn", "Sign in with a user name or an email address, and a password", "Credentials", _tokens(), "bad_credentials", "signing_keys_missing")
    fields = {name: {"type": "string"} for name in ("grant_type", "username", "password", "scope")}
    form = {"type": "object", "required": ["username", "password"], "properties": fields | {"grant_type": {"const": "password"}}}
    operation["requestBody"]["content"]["application/x-www-form-urlencoded"] = {"schema": form}
    return operation


def _with_body(
    operation_id: str, summary: str, model: str, responses: dict[str, Any], *codes: str, parameters: list[dict[str, Any]] | None = None, required: bool = True
) -> dict[str, Any]:
    return {
        "operationId": operation_id,
        "summary": summary,
        "requestBody": {"required": required, "content": {"application/json": {"schema": ref(model)}}},
        "responses": responses | problem_responses(*JSON_BODY_CODES, "database_unavailable", *codes),
    } | ({"parameters": parameters} if parameters else {})


def _without_body(operation_id: str, summary: str, parameters: list[dict[str, Any]], responses: dict[str, Any], *codes: str) -> dict[str, Any]:
    return {
        "operationId": operation_id,
        "summary": summary,
        "parameters": parameters,
        "responses": responses | problem_responses("database_unavailable", *codes),
    }
