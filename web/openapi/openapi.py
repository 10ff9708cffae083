"""The OpenAPI description of the document itself."""

from typing import Any

from web.http.openapi_components import simple_operation


def paths() -> dict[str, Any]:
    """Return the path items of this resource."""
    return {
        "/openapi.json": {"get": simple_operation("getOpenApi", "This document")},
        "/docs": {"get": simple_operation("getDocs", "This document as a page", media_type="text/html")},
    }
