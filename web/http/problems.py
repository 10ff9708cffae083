"""Convert every error to a response of type ``application/problem+json`` (RFC 9457)."""

from typing import Any, Final

import orjson
from flask import Flask, Response, g, request
from pymongo.errors import PyMongoError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestedRangeNotSatisfiable

from shared import telemetry
from shared.errors import QueuePaused, ShelfsightError
from web.http.challenges import challenge
from web.http.error_codes import CODES

MEDIA_TYPE: Final = "application/problem+json"
MAX_ERRORS: Final = 100
INTERNAL_ERROR_DETAIL: Final = "Internal error; report the request ID to the operator, who can find it in the log."
_MAX_POINTER_STEP: Final = 200
_CODES_BY_STATUS: Final = {
    CODES[code].status: code
    for code in ("bad_request", "not_found", "method_not_allowed", "precondition_failed", "range_not_satisfiable")
}
"""The error code for each HTTP status of the errors that Flask and werkzeug raise."""


class StoredProblem(ShelfsightError):
    """The stored error of a failed inspection, returned to every client that requests the same inspection.

    The error handlers do not log this error, because otherwise it would be logged once for each of these clients.
    """

    def __init__(self, members: dict[str, Any], retry_after: int) -> None:
        """Create the error.

        :param members: the members of a problem document, as ``shared.inspections.jobs`` stores them.
        :param retry_after: the number of seconds after which the client can retry.
        """
        super().__init__(members["detail"], code=members["code"], extra=members["extra"], retry_after=retry_after)
        self.status, self.title = members["status"], members["title"]


def install(app: Flask) -> None:
    """Register error handlers that return a problem document for every error."""
    app.register_error_handler(ShelfsightError, _handle_domain_error)
    app.register_error_handler(HTTPException, _handle_http_exception)
    app.register_error_handler(Exception, _handle_unexpected)


def problem(error: ShelfsightError) -> Response:
    """Return the response for a ``ShelfsightError``."""
    members = dict(error.extra)
    if error.errors:
        members["errors"] = [field.as_json() for field in error.errors[:MAX_ERRORS]]
    response = _problem_response(error.status, error.title, error.code, error.detail, members)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if (header := challenge(error)) is not None:
        response.headers["WWW-Authenticate"] = header
    return response


def document(status: int, title: str, code: str, detail: str, *, instance: str, request_id: str) -> dict[str, Any]:
    """Return a problem document with the members that all problem documents have."""
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
    """Return a name as one step of a JSON Pointer (RFC 6901).

    The name is truncated to 200 characters, because clients can send names of any length.
    """
    return "/" + name[:_MAX_POINTER_STEP].replace("~", "~0").replace("/", "~1")


def _problem_response(status: int, title: str, code: str, detail: str, members: dict[str, Any]) -> Response:
    g.problem_code = code  # web.security_events counts refused requests by their codes
    body = document(status, title, code, detail, instance=request.path, request_id=g.request_id)
    return Response(orjson.dumps(body | members), status, mimetype=MEDIA_TYPE)


def _handle_domain_error(error: ShelfsightError) -> Response:
    if error.status >= 500 and not isinstance(error, StoredProblem | QueuePaused):
        # shared.storage.mongo_errors logs the causes in MongoDB, less often than once per request.
        cause = None if isinstance(error.__cause__, PyMongoError) else error.__cause__
        telemetry.errors.error(
            "%s: %s", error.code, error.detail, exc_info=cause, extra={"data": {"request_id": g.request_id}}
        )
    return problem(error)


def _handle_http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    code = _CODES_BY_STATUS.get(status, "bad_request" if status < 500 else "internal_error")
    detail = (
        "There is no resource at this URL; check the URL." if status == 404 else str(error.description or error.name)
    )
    response = _problem_response(status, error.name.capitalize(), code, detail, {})
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    if isinstance(error, RequestedRangeNotSatisfiable):
        response.headers["Content-Range"] = f"bytes */{error.length}"
    return response


def _handle_unexpected(error: Exception) -> Response:
    telemetry.errors.error(
        "unexpected error", exc_info=error, extra={"data": {"request_id": g.request_id, "path": request.path}}
    )
    return problem(
        ShelfsightError(INTERNAL_ERROR_DETAIL)
    )
