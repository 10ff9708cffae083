"""Return the OpenAPI document as JSON, and as a page that loads nothing from other hosts."""

from flask import Blueprint, Response, render_template

from web.http.error_codes import CODES
from web.http.responses import json_response
from web.openapi.document import document

blueprint = Blueprint("openapi", __name__)


@blueprint.get("/openapi.json")
def openapi_json() -> Response:
    """Return the OpenAPI document."""
    return json_response(document())


@blueprint.get("/docs")
def docs() -> str:
    """Return the OpenAPI document as a page."""
    return render_template("openapi.html", api=document(), codes=CODES)
