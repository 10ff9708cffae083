"""What the descriptions of calls are put together from."""

from typing import Any, Final

from web.http.error_codes import CODES

REF: Final = "#/components/schemas/{model}"
_HEX: Final = "^[0-9a-f]{32}$"
ID: Final = {"batch_id": _HEX, "image_id": "^[0-9a-f]{36}$", "inspection_id": _HEX, "result_id": _HEX}
PAGE: Final = {"type": "integer", "minimum": 1, "maximum": 10**9}
WAIT: Final = {"type": "integer", "minimum": 0, "description": "Seconds; above 30 is taken as 30, and none while many wait already"}
BINARY: Final = {"type": "string", "format": "binary"}
BODY: Final = (
    "bad_request", "malformed_json", "incomplete_body", "malformed_chunks", "bad_gzip", "malformed_form", "foreign_origin", "body_too_slow",
    "body_too_large", "too_many_images", "too_many_values", "unsupported_media_type", "invalid", "too_many_requests", "unavailable",
)  # fmt: skip
"""Codes of calls that read a body."""

_ALWAYS: Final = ("unauthorized", "misdirected_request")
_HTML: Final = {"text/html": {"schema": {"type": "string"}}}
_RETRY: Final = {"Retry-After": {"description": "Seconds after which to try again, where that makes sense", "schema": {"type": "integer"}}}
_AWAIT_AT: Final = {"Location": {"description": "Where it is once it is done", "schema": {"type": "string"}}}


def awaited(description: str, schema: dict[str, Any], *, page: bool = True) -> dict[str, Any]:
    """Give the answers of what is made while one waits, as long as nothing goes wrong."""
    as_page = _HTML if page else {}
    done = {"description": description, "content": {"application/json": {"schema": schema}, **as_page}}
    later = {"inspection": {"operationId": "getInspection", "parameters": {"inspection_id": "$response.body#/id"}}}
    waiting = {
        "description": "Not done within the wait",
        "headers": _RETRY | _AWAIT_AT,
        "content": {"application/json": {"schema": ref("Awaited")}, **as_page},
        "links": later,
    }
    return {"200": done, "202": waiting} | ({"304": {"description": "Not modified"}} if page else {})


def or_pages(answers: dict[str, Any]) -> dict[str, Any]:
    """Say that problems are pages for those who want pages."""
    return {status: problem | {"content": problem["content"] | _HTML} for status, problem in answers.items()}


def file(operation: str, summary: str, parameters: list[dict[str, Any]], *codes: str) -> dict[str, Any]:
    """Describe a call that gives a file.

    :param codes: of its problems, beside those that every file has.
    """
    binary = {"image/*": {"schema": BINARY}}
    ok = {"200": {"description": summary, "content": binary}, "206": {"description": "A part of it", "content": binary}}
    ok["304"] = {"description": "Not modified"}
    responses = ok | problems("not_found", "precondition_failed", "range_not_satisfiable", "database_unavailable", "blobs_unavailable", *codes)
    return {"operationId": operation, "summary": summary, "parameters": parameters, "responses": responses}


def plain(operation: str, summary: str, *codes: str, media: str = "application/json", parameters: Any = None) -> dict[str, Any]:
    """Describe a call that gives a text, a page or JSON of no fixed form.

    :param codes: of its problems, beside those that every call has.
    """
    answer = {"description": summary, "content": {media: {"schema": {} if media == "application/json" else {"type": "string"}}}}
    refusals = problems(*codes)
    responses = {"200": answer} | (or_pages(refusals) if media == "text/html" else refusals)
    return {"operationId": operation, "summary": summary, "responses": responses} | ({"parameters": parameters} if parameters else {})


def problems(*codes: str) -> dict[str, Any]:
    """Describe the problems of a call by their status: those with these codes, and those that every call has."""
    by_status: dict[str, list[str]] = {}
    for code in sorted({*codes, *_ALWAYS}, key=list(CODES).index):
        by_status.setdefault(str(CODES[code][0]), []).append(code)
    content = {"application/problem+json": {"schema": ref("Problem")}}
    return {status: {"description": f"One of: {', '.join(those)}", "headers": _RETRY, "content": content} for status, those in by_status.items()}


def as_json(description: str, model: str) -> dict[str, Any]:
    """Describe an answer that is a model's JSON."""
    return {"description": description, "content": {"application/json": {"schema": ref(model)}}}


def ref(model: str) -> dict[str, str]:
    """Name a schema."""
    return {"$ref": REF.format(model=model)}


def in_path(name: str) -> dict[str, Any]:
    """Describe an id in a path."""
    return parameter(name, {"type": "string", "pattern": ID[name]}, where="path")


def parameter(name: str, schema: dict[str, Any], where: str = "query") -> dict[str, Any]:
    """Describe a parameter."""
    return {"name": name, "in": where, "required": where == "path", "schema": schema}
