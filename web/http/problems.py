"""Every error as ``application/problem+json`` (RFC 9457)."""

from typing import Any, Final

import orjson
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestedRangeNotSatisfiable

from shared import telemetry
from shared.errors import ShelfsightError

MEDIA_TYPE: Final = "application/problem+json"
MAX_ERRORS: Final = 100
_POINTER_MAX: Final = 200
_CODES: Final = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    412: "precondition_failed",
    416: "range_not_satisfiable",
}


class Retold(ShelfsightError):
    """What an inspection came to, told again to whoever asks. It was logged where it happened."""

    def __init__(self, said: dict[str, Any], retry_after: int) -> None:
        """Take the members of a problem as ``shared.inspections.jobs`` keeps them."""
        super().__init__(said["detail"], code=said["code"], extra=said["extra"], retry_after=retry_after)
        self.status, self.title = said["status"], said["title"]


def install(app: Flask) -> None:
    """Answer every error with a problem document."""
    app.register_error_handler(ShelfsightError, _domain)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def problem(error: ShelfsightError) -> Response:
    """Make the answer for a domain error."""
    members = dict(error.extra)
    if error.errors:
        members["errors"] = [field.as_json() for field in error.errors[:MAX_ERRORS]]
    answer = _document(error.status, error.title, error.code, error.detail, members)
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _document(status: int, title: str, code: str, detail: str, members: dict[str, Any]) -> Response:
    body = document(status, title, code, detail, instance=request.path, request_id=g.request_id)
    return Response(orjson.dumps(body | members), status, mimetype=MEDIA_TYPE)


def document(status: int, title: str, code: str, detail: str, *, instance: str, request_id: str) -> dict[str, Any]:
    """Give the members that every problem document has."""
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
    """Give one step of a JSON Pointer (RFC 6901); a name without end is cut."""
    return "/" + name[:_POINTER_MAX].replace("~", "~0").replace("/", "~1")


def _domain(error: ShelfsightError) -> Response:
    if error.status >= 500 and not isinstance(error, Retold):
        telemetry.errors.error(
            "%s: %s", error.code, error.detail, exc_info=error.__cause__, extra={"data": {"request_id": g.request_id}}
        )
    return problem(error)


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    code = _CODES.get(status, "bad_request" if status < 500 else "internal_error")
    answer = _document(status, error.name.capitalize(), code, _sentence(error), {})
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        answer.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    if isinstance(error, RequestedRangeNotSatisfiable):
        answer.headers["Content-Range"] = f"bytes */{error.length}"
    return answer


def _sentence(error: HTTPException) -> str:
    if error.code == 404:
        return "There is nothing at this address."
    return str(error.description or error.name)


def _unexpected(error: Exception) -> Response:
    telemetry.errors.error("unexpected", exc_info=error, extra={"data": {"request_id": g.request_id, "path": request.path}})
    return problem(ShelfsightError("Something went wrong here; the request id helps to find it."))
