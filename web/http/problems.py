"""Every error as ``application/problem+json`` (RFC 9457)."""

from typing import Any, Final

import orjson
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestedRangeNotSatisfiable

from shared import telemetry
from shared.errors import ShelfsightError
from web.http.error_codes import CODES

MEDIA_TYPE: Final = "application/problem+json"
MAX_ERRORS: Final = 100
_MAX_POINTER_STEP: Final = 200
_CODES_BY_STATUS: Final = {
    CODES[code].status: code
    for code in ("bad_request", "not_found", "method_not_allowed", "precondition_failed", "range_not_satisfiable")
}
"""Codes of the errors that Flask and werkzeug raise."""


class StoredProblem(ShelfsightError):
    """The error of a failed inspection, returned to every client that requests the same. It is not logged again."""

    def __init__(self, members: dict[str, Any], retry_after: int) -> None:
        """Take the members of a problem as ``shared.inspections.jobs`` stores them."""
        super().__init__(members["detail"], code=members["code"], extra=members["extra"], retry_after=retry_after)
        self.status, self.title = members["status"], members["title"]


def install(app: Flask) -> None:
    """Answer every error with a problem document."""
    app.register_error_handler(ShelfsightError, _handle_domain_error)
    app.register_error_handler(HTTPException, _handle_http_exception)
    app.register_error_handler(Exception, _handle_unexpected)


def problem(error: ShelfsightError) -> Response:
    """Return the response to a domain error."""
    members = dict(error.extra)
    if error.errors:
        members["errors"] = [field.as_json() for field in error.errors[:MAX_ERRORS]]
    response = _problem_response(error.status, error.title, error.code, error.detail, members)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def document(status: int, title: str, code: str, detail: str, *, instance: str, request_id: str) -> dict[str, Any]:
    """Return the members that every problem document has."""
    return {
        "type": f"/docs#{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
        "request_id": request_id,
    }


def pointer(name: str) -> str:
    """Return one step of a JSON Pointer (RFC 6901), cut after 200 characters: clients may send names of any length."""
    return "/" + name[:_MAX_POINTER_STEP].replace("~", "~0").replace("/", "~1")


def _problem_response(status: int, title: str, code: str, detail: str, members: dict[str, Any]) -> Response:
    body = document(status, title, code, detail, instance=request.path, request_id=g.request_id)
    return Response(orjson.dumps(body | members), status, mimetype=MEDIA_TYPE)


def _handle_domain_error(error: ShelfsightError) -> Response:
    if error.status >= 500 and not isinstance(error, StoredProblem):
        telemetry.errors.error(
            "%s: %s", error.code, error.detail, exc_info=error.__cause__, extra={"data": {"request_id": g.request_id}}
        )
    return problem(error)


def _handle_http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    code = _CODES_BY_STATUS.get(status, "bad_request" if status < 500 else "internal_error")
    detail = "There is nothing at this address." if status == 404 else str(error.description or error.name)
    response = _problem_response(status, error.name.capitalize(), code, detail, {})
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    if isinstance(error, RequestedRangeNotSatisfiable):
        response.headers["Content-Range"] = f"bytes */{error.length}"
    return response


def _handle_unexpected(error: Exception) -> Response:
    telemetry.errors.error(
        "unexpected", exc_info=error, extra={"data": {"request_id": g.request_id, "path": request.path}}
    )
    return problem(ShelfsightError("Internal error of the service; report the request id, which its log contains."))
