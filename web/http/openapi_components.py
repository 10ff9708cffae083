"""Functions and constants that build the OpenAPI descriptions of operations."""

from typing import Any, Final

from shared.ids import BATCH_ID_PATTERN, DIGEST_ID_PATTERN, IMAGE_ID_PATTERN
from shared.queues import QUEUES
from web.http import cursor_pages
from web.http.error_codes import CODES
from web.http.query import MAX_PAGE

REF: Final = "#/components/schemas/{model}"
ID: Final = {
    "batch_id": f"^{BATCH_ID_PATTERN}$",
    "image_id": f"^{IMAGE_ID_PATTERN}$",
    "inspection_id": f"^{DIGEST_ID_PATTERN}$",
    "job_id": f"^{BATCH_ID_PATTERN}$",
    "queue_name": f"^({'|'.join(queue.label for queue in QUEUES)})$",
    "result_id": f"^{DIGEST_ID_PATTERN}$",
}
PAGE: Final = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}
PER_PAGE: Final = {"type": "integer", "minimum": 1, "maximum": cursor_pages.MAX_PER_PAGE, "default": cursor_pages.DEFAULT_PER_PAGE}
WAIT: Final = {
    "type": "integer",
    "minimum": 0,
    "description": "Number of seconds to wait for the result. Values above 30 are treated as 30. The service does not wait while too many other requests are waiting.",
}
TIME: Final[dict[str, Any]] = {
    "anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}],
    "description": "RFC 3339 time (UTC if it has no offset), or Unix seconds",
}
BINARY: Final = {"type": "string", "format": "binary"}
BODY_CODES: Final = (
    "bad_request", "malformed_json", "incomplete_body", "malformed_chunks", "bad_gzip", "malformed_form", "foreign_origin", "body_too_slow",
    "body_too_large", "too_many_images", "too_many_values", "unsupported_media_type", "invalid", "digest_mismatch", "too_many_requests", "unavailable",
)  # fmt: skip
"""Error codes that every operation with a request body can return."""
JSON_BODY_CODES: Final = tuple(code for code in BODY_CODES if code not in {"too_many_images", "malformed_form"})
"""Error codes that every operation with a JSON body can return, except uploads."""
CHANGE_IMAGE_CODES: Final = ("foreign_origin", "foreign_store", "not_found", "invalid", "precondition_failed", "database_unavailable")
"""Error codes that every operation that changes one image can return."""

_EVERY_CODES: Final = ("unauthorized", "misdirected_request", "uri_too_long", "headers_too_large", "internal_error", "database_unavailable")
"""Error codes that every operation can return. Credentials that are sent are checked in the database, also for public operations."""
_CODES_KEY: Final = "x-error-codes"
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
RATE_LIMIT_HEADERS: Final = {
    "RateLimit-Policy": {
        "description": "The quotas against which the request counted: `q` requests in `w` seconds (draft-ietf-httpapi-ratelimit-headers-11, a list of structured fields).",
        "schema": {"type": "string", "examples": ['"key";q=6000;w=60']},
    },
    "RateLimit": {
        "description": "What remains of these quotas: `r` requests. `t` is the number of seconds until the window ends or, with status 429, until a request is admitted.",
        "schema": {"type": "string", "examples": ['"key";r=5999;t=60']},
    },
}
"""The headers of responses to requests that count against a quota. They belong to the components of the document."""
RATE_LIMIT: Final = {name: {"$ref": f"#/components/headers/{name}"} for name in RATE_LIMIT_HEADERS}
RETRY_AFTER: Final = {"Retry-After": {"description": "Number of seconds to wait before a retry. The header is present only if a retry can succeed.", "schema": {"type": "integer"}}}


def job_started(description: str) -> dict[str, Any]:
    """Describe the response with the id of a job that was queued."""
    location = {"Location": {"description": "The path of the job", "schema": {"type": "string"}}}
    return json_content(description, "JobStarted") | {"headers": location}


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
    } | problem_responses("not_found", "range_not_satisfiable", "database_unavailable", "blobs_unavailable", *codes)
    responses |= or_html(problem_responses("precondition_failed"))  # nginx answers an empty If-Match with a page of its own
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


def with_rate_limit(responses: dict[str, Any]) -> dict[str, Any]:
    """Return the responses of an operation that counts requests, each with the headers that show the quota."""
    return {
        status: response if status in _SERVER_STATUSES else response | {"headers": response.get("headers", {}) | RATE_LIMIT}
        for status, response in responses.items()
    }


def problem_responses(*codes: str) -> dict[str, Any]:
    """Return the error responses of an operation, with the status as key.

    The responses include ``codes`` and the error codes that every operation has. An operation that can return
    ``database_unavailable`` can also return ``database_misconfigured``. The same holds for the blob store.
    """
    named = {*codes, *_EVERY_CODES}
    implied = {f"{store}_misconfigured" for store in ("database", "blobs") if f"{store}_unavailable" in named}
    by_status: dict[str, set[str]] = {}
    for code in named | implied:
        by_status.setdefault(str(CODES[code].status), set()).add(code)
    content = {"application/problem+json": {"schema": ref("Problem")}}
    return {status: {"headers": RETRY_AFTER, "content": content} | _describe_codes(names) for status, names in sorted(by_status.items())}


def with_code(responses: dict[str, Any], code: str) -> dict[str, Any]:
    """Return the responses of an operation, to which an error code is added.

    The media types of a new response are those of the response with status 401, which every operation has.
    """
    status = str(CODES[code].status)
    response = responses.get(status, responses["401"])
    names = {code, *responses.get(status, {}).get(_CODES_KEY, ())}
    return dict(sorted((responses | {status: response | _describe_codes(names)}).items()))


def _describe_codes(codes: set[str]) -> dict[str, Any]:
    names = sorted(codes, key=list(CODES).index)
    return {"description": f"One of: {', '.join(names)}", _CODES_KEY: names}


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


def of_image(
    operation_id: str, summary: str, responses: dict[str, Any], *codes: str, etag_of: str | None = None, body: str | None = None, requires_body: bool = False
) -> dict[str, Any]:
    """Describe an operation on one image, whose id is in the path.

    :param codes: the error codes that the operation can return beside those of its kind.
    :param etag_of: for an operation that changes the image, what has an ETag, as for ``if_match``; None for one that reads.
    :param body: the name of the model of the body, if the operation has one.
    """
    known: tuple[str, ...] = ("not_found", "invalid", "database_unavailable") if etag_of is None else CHANGE_IMAGE_CODES
    known += JSON_BODY_CODES if body is not None else ()
    described: dict[str, Any] = {
        "operationId": operation_id,
        "summary": summary,
        "parameters": [path_id("image_id"), *([] if etag_of is None else [if_match(etag_of)])],
        "responses": responses | problem_responses(*known, *codes),
    }
    if body is not None:
        described["requestBody"] = {"required": requires_body, "content": {"application/json": {"schema": ref(body)}}}
    return described


def if_match(subject: str) -> dict[str, Any]:
    """Describe the header ``If-Match`` of an operation.

    :param subject: what has an ETag, with its verb, for example "the image has".
    """
    text = f"The response is 412 unless {subject} one of these ETags."
    return parameter("If-Match", {"type": "string", "description": text}, where="header")


def paging_parameters(key: dict[str, Any]) -> list[dict[str, Any]]:
    """Describe the parameters of a list that is read with ``web.http.cursor_pages``.

    :param key: the schema of the list's keys.
    """
    cursor = key | {"description": "The next_cursor of the previous page. Without it, the list begins with its first page."}
    return [parameter("per_page", PER_PAGE), parameter("cursor", cursor)]
