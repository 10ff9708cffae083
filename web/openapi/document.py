"""Build the OpenAPI 3.1 document from the descriptions in the ``openapi.py`` module of each resource."""

from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from web.batches import openapi as batches
from web.files import openapi as files
from web.http.openapi_components import REF
from web.http.problem_schema import Problem
from web.inspections import openapi as inspections
from web.openapi import openapi
from web.operations import openapi as operations
from web.pages import openapi as pages
from web.uploads import openapi as uploads

_DESCRIPTION: Final = (
    "Every GET operation can also be requested with HEAD, which returns the same headers without the body. "
    "OPTIONS returns the methods of a path; any other method is refused with 405 method_not_allowed, and an unknown path with 404 not_found. "
    "Every response has X-Request-ID, which is that of the request if it consists of 1 to 128 letters, digits and characters of ._:-"
)


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    models: list[type[BaseModel]] = [Problem, *uploads.MODELS, *batches.MODELS, *operations.MODELS, *inspections.MODELS]
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=REF)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Shelfsight", "version": "0.1.0", "summary": "Accepts, stores, processes and shows batches of images from store cameras.", "description": _DESCRIPTION},
        "paths": {path: item for resource in (uploads, batches, files, operations, openapi, pages, inspections) for path, item in resource.paths().items()},
        "components": {"schemas": schemas["$defs"]},
    }
