"""The OpenAPI description of the HTML pages."""

from typing import Any, Final

from shared.augmentations import AUGMENTATIONS
from shared.inspections.recipes import MAX_SEED
from web.batches.openapi import CURSOR
from web.http.openapi_components import (
    PAGE,
    WAIT,
    or_html,
    parameter,
    path_id,
    problem_responses,
    ref,
    simple_operation,
    with_rate_limit,
)
from web.inspections.openapi import OPERATION_CODES, URL, inspection_responses

NEXT_PATH: Final[dict[str, Any]] = {"type": "string", "pattern": r"^/([!-.0-\[\]-~][!-\[\]-~]*)?$", "maxLength": 2000, "default": "/", "description": "The page to open afterwards: a path of this service"}
KEY_CURSOR: Final[dict[str, Any]] = {"type": "string", "pattern": "^[0-9a-z]{16}$", "description": "Position in the list of API keys. Without it, the page shows the first ones."}


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for the HTML pages."""
    return {
        "/": {"get": _start_page()},
        "/signup": {"get": simple_operation("getSignUpPage", "Get the page on which people sign up", "invalid", media_type="text/html")},
        "/login": {"get": simple_operation("getSignInPage", "Get the page on which people sign in", "invalid", media_type="text/html", parameters=[parameter("next", NEXT_PATH)])},
        "/account": {
            "get": simple_operation(
                "getAccountPage", "Get the page on which people see what they may do, and manage their keys, their password and their sessions",
                "invalid", "bad_cursor", "query_too_slow", "database_unavailable", media_type="text/html", parameters=[parameter("cursor", KEY_CURSOR)],
            )
        },
        "/reset_password": {"get": simple_operation("getResetPasswordPage", "Get the page on which people set a new password with a one-time link", "invalid", media_type="text/html")},
        "/batches/{batch_id}": {
            "get": simple_operation(
                "getBatchPage",
                "Get a batch as a page",
                "not_found",
                "invalid",
                "database_unavailable",
                "query_too_slow",
                media_type="text/html",
                parameters=[path_id("batch_id"), parameter("page", PAGE | {"description": "Page number of the images of the batch, 100 on each page"})],
            )
        },
    }


def _start_page() -> dict[str, Any]:
    names = "|".join(AUGMENTATIONS)
    augmentations = {"type": "string", "pattern": f"^({names})(,({names}))*$", "description": "Names of augmentations, separated by commas. By default, all augmentations are made."}
    seed = {"type": "integer", "minimum": 0, "maximum": MAX_SEED, "default": 0, "description": "Seed for the random parameters of the augmentations"}
    return {
        "operationId": "getStartPage",
        "summary": "Get the start page. With the url parameter, inspect one image and show its augmentations instead.",
        "parameters": [
            parameter("page", PAGE | {"description": "Page number of the list of batches. Must not be combined with url or cursor."}),
            parameter("cursor", CURSOR),
            parameter("url", URL),
            parameter("augmentations", augmentations),
            parameter("seed", seed),
            parameter("wait", WAIT),
        ],
        "responses": with_rate_limit(
            inspection_responses("A page, or JSON if Accept prefers JSON", ref("AugmentedImage"))
            | or_html(problem_responses("foreign_origin", "bad_cursor", "query_too_slow", *OPERATION_CODES))
        ),
    }
