"""The OpenAPI description of ``/openapi.json`` and ``/docs``."""

from typing import Any

from web.http.openapi_components import simple_operation


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for ``/openapi.json`` and ``/docs``."""
    return {
        "/openapi.json": {"get": simple_operation("getOpenApi", "Get this OpenAPI document")},
        "/docs": {"get": simple_operation("getDocs", "Get this OpenAPI document as a page", media_type="text/html")},
    }
