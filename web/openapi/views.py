"""Return the OpenAPI document as JSON, and as a page that loads nothing from other hosts."""

from typing import Any

from flask import Blueprint, Response, current_app, render_template

from web.http import access_rules
from web.http.error_codes import CODES
from web.http.responses import json_response
from web.openapi.document import document
from web.openapi.security import MEANINGS
from web.services import current_services

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
    return render_template("openapi.html", api=_document(), codes=CODES, meanings=MEANINGS, is_open=_is_open())


def _document() -> dict[str, Any]:
    return document(current_app, is_open=_is_open())


def _is_open() -> bool:
    return not current_services().settings.access.is_on
