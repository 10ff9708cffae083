"""Return the OpenAPI document as JSON, and as a page that loads nothing from other hosts."""

from typing import Any, Final

from flask import Blueprint, Response, current_app, render_template

from shared.accounts.permissions import SCOPE_MEANINGS
from web.http import access_rules
from web.http.error_codes import CODES
from web.http.responses import json_response
from web.openapi.document import document
from web.services import current_services

_EXTENSION: Final = "shelfsight-openapi"
blueprint = Blueprint("openapi", __name__)


@blueprint.get("/openapi.json")
@access_rules.public
def openapi_json() -> Response:
    """Return the OpenAPI document."""
    return json_response(_document())


@blueprint.get("/docs")
@access_rules.public
def docs() -> str:
    """Return the OpenAPI document as a page."""
    return render_template("openapi.html", api=_document(), codes=CODES, meanings=SCOPE_MEANINGS, is_open=_is_open())


def _document() -> dict[str, Any]:
    """Return the document, which is built once for an application: that takes ten times as long as encoding it."""
    extensions = current_app.extensions
    if _EXTENSION not in extensions:
        extensions[_EXTENSION] = document(current_app, is_open=_is_open())
    built: dict[str, Any] = extensions[_EXTENSION]
    return built


def _is_open() -> bool:
    return not current_services().settings.access.is_on
