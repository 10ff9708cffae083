"""Functions and constants that build the OpenAPI descriptions of operations."""

from typing import Any, Final

from shared.ids import BATCH_ID_PATTERN, DIGEST_ID_PATTERN, IMAGE_ID_PATTERN
from web.http.error_codes import CODES
from web.http.query import MAX_PAGE

REF: Final = "#/components/schemas/{model}"
ID: Final = {
    "batch_id": f"^{BATCH_ID_PATTERN}$",
    "image_id": f"^{IMAGE_ID_PATTERN}$",
    "inspection_id": f"^{DIGEST_ID_PATTERN}$",
    "result_id": f"^{DIGEST_ID_PATTERN}$",
}
PAGE: Final = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}
WAIT: Final = {
    "type": "integer",
    "minimum": 0,
    "description": "Number of seconds to wait for the result. Values above 30 are treated as 30. The service does not wait while too many other requests are waiting.",
}
BINARY: Final = {"type": "string", "format": "binary"}
BODY_CODES: Final = (
    "bad_request", "malformed_json", "incomplete_body", "malformed_chunks", "bad_gzip", "malformed_form", "foreign_origin", "body_too_slow",
    "body_too_large", "too_many_images", "too_many_values", "unsupported_media_type", "invalid", "digest_mismatch", "too_many_requests", "unavailable",
)  # fmt: skip
"""Error codes that every operation with a request body can return."""

_EVERY_CODES: Final = ("unauthorized", "misdirected_request", "uri_too_long", "headers_too_large", "internal_error")
_SERVER_STATUSES: Final = frozenset({"414", "431"})
"""Statuses of requests that the server refuses before they reach an operation. They are never pages."""
CONTENT_DIGEST: Final = {
    "type": "string",
    "examples": ["sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"],
    "description": "Digests of the body as it is sent, compressed or not (RFC 9530). Those of sha-256 and sha-512 are compared with the body.",
}
_CONDITIONS: Final = {
    "Range": "One range of bytes. Any other value is ignored, and so is the header in a HEAD request.",
    "If-Range": "The range is returned only if this is the ETag or the Last-Modified of the file.",
    "If-None-Match": "The response is 304 if the file has one of these ETags.",
    "If-Modified-Since": "The response is 304 if the file has not changed after this time.",
    "If-Match": "The response is 412 unless the file has one of these ETags.",
    "If-Unmodified-Since": "The response is 412 if the file has changed after this time.",
}
HTML: Final = {"text/html": {"schema": {"type": "string"}}}
RETRY_AFTER: Final = {"Retry-After": {"description": "Number of seconds to wait before a retry. The header is present only if a retry can succeed.", "schema": {"type": "integer"}}}


def or_html(responses: dict[str, Any]) -> dict[str, Any]:
    """Add HTML to the media types of error responses, because clients that prefer HTML receive an error page."""
    return {
        status: response if status in _SERVER_STATUSES else response | {"content": response["content"] | HTML}
        for status, response in responses.items()
    }


def file_operation(operation_id: str, summary: str, parameters: list[dict[str, Any]], *codes: str) -> dict[str, Any]:
    """Describe an operation that returns a file, a range of it, or nothing if a condition in the headers is not met.

    :param codes: error codes in addition to the error codes that every file operation has.
    """
    content = {"image/*": {"schema": BINARY}}
    responses = {
        "200": {"description": summary, "content": content},
        "206": {"description": "The requested range of the file", "content": content},
        "304": {"description": "Not modified"},
    } | problem_responses("not_found", "precondition_failed", "range_not_satisfiable", "database_unavailable", "blobs_unavailable", *codes)
    conditions = [parameter(name, {"type": "string", "description": text}, where="header") for name, text in _CONDITIONS.items()]
    return {"operationId": operation_id, "summary": summary, "parameters": [*parameters, *conditions], "responses": responses}


def simple_operation(operation_id: str, summary: str, *codes: str, media_type: str = "application/json", parameters: Any = None) -> dict[str, Any]:
    """Describe an operation that returns text, a page, or JSON without a schema.

    :param codes: error codes in addition to the error codes that every operation has.
    """
    success = {"description": summary, "content": {media_type: {"schema": {} if media_type == "application/json" else {"type": "string"}}}}
    errors = problem_responses(*codes)
    responses = {"200": success} | (or_html(errors) if media_type == "text/html" else errors)
    return {"operationId": operation_id, "summary": summary, "responses": responses} | ({"parameters": parameters} if parameters else {})


def problem_responses(*codes: str) -> dict[str, Any]:
    """Return the error responses of an operation, with the status as key.

    The responses include ``codes`` and the error codes that every operation has. An operation that uses the database
    names ``database_unavailable``; it can also return ``database_misconfigured``. The same holds for the blob store.
    """
    implied = {f"{store}_misconfigured" for store in ("database", "blobs") if f"{store}_unavailable" in codes}
    by_status: dict[str, list[str]] = {}
    for code in sorted({*codes, *implied, *_EVERY_CODES}, key=list(CODES).index):
        by_status.setdefault(str(CODES[code][0]), []).append(code)
    content = {"application/problem+json": {"schema": ref("Problem")}}
    return {status: {"description": f"One of: {', '.join(names)}", "headers": RETRY_AFTER, "content": content} for status, names in by_status.items()}


def json_content(description: str, model: str) -> dict[str, Any]:
    """Describe a response whose body is JSON that matches ``model``."""
    return {"description": description, "content": {"application/json": {"schema": ref(model)}}}


def ref(model: str) -> dict[str, str]:
    """Return a reference to the schema of ``model`` in the components of the document."""
    return {"$ref": REF.format(model=model)}


def path_id(name: str) -> dict[str, Any]:
    """Describe a path parameter that contains an id."""
    return parameter(name, {"type": "string", "pattern": ID[name]}, where="path")


def parameter(name: str, schema: dict[str, Any], where: str = "query") -> dict[str, Any]:
    """Describe a parameter of an operation."""
    return {"name": name, "in": where, "required": where == "path", "schema": schema}
