"""Build the OpenAPI 3.1 document from the descriptions in the ``openapi.py`` module of each resource."""

from typing import Any, Final

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from web.accounts import openapi as accounts
from web.admin import openapi as admin
from web.annotations import openapi as annotations
from web.audit import openapi as audit
from web.batches import openapi as batches
from web.files import openapi as files
from web.http.openapi_components import RATE_LIMIT_HEADERS, REF
from web.http.problem_schema import Problem
from web.images import openapi as images
from web.inspections import openapi as inspections
from web.jobs import openapi as jobs
from web.openapi import openapi, security
from web.operations import openapi as operations
from web.pages import openapi as pages
from web.receipts import openapi as receipts
from web.reprocessing import openapi as reprocessing
from web.tags import openapi as tags
from web.uploads import openapi as uploads

_RESOURCES: Final = (
    uploads, batches, receipts, images, tags, annotations, jobs, reprocessing, files, operations, openapi, pages, inspections, accounts, audit,
    admin,
)  # fmt: skip
_DESCRIPTION: Final = (
    "Every GET operation can also be requested with HEAD, which returns the same headers without the body. "
    "OPTIONS returns the methods of a path; any other method is refused with 405 method_not_allowed, and an unknown path with 404 not_found. "
    "Unless access is open, a request without valid credentials is refused with 401 unauthorized, also if its path or its method does not exist; only public operations need no credentials. "
    "Browsers send the session cookie that POST /sessions sets in place of the Authorization header. An operation that changes something then needs a CSRF token in X-CSRF-Token, too, which is in the pages. "
    "Every response has X-Request-ID, which is that of the request if it consists of 1 to 128 letters, digits and characters of ._:-"
)


def document(app: Flask, *, is_open: bool) -> dict[str, Any]:
    """Return the OpenAPI document of an application.

    :param is_open: whether requests without credentials are permitted everywhere.
    """
    models: list[type[BaseModel]] = [Problem, *(model for resource in _RESOURCES for model in getattr(resource, "MODELS", ()))]
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=REF)
    paths: dict[str, Any] = {}
    for resource in _RESOURCES:
        for path, item in resource.paths().items():
            paths.setdefault(path, {}).update(item)  # a path can have a page of one resource and a POST of another
    return {
        "openapi": "3.1.0",
        "info": {"title": "Shelfsight", "version": "0.1.0", "summary": "Accepts, stores, processes and shows batches of images from store cameras.", "description": _DESCRIPTION},
        "paths": security.describe_access(paths, app, is_open=is_open),
        "components": {"schemas": schemas["$defs"], "headers": RATE_LIMIT_HEADERS, "securitySchemes": security.schemes()},
    }
