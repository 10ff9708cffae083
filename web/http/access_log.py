"""Write one structured log line for each request."""

import time

from flask import Flask, Response, g, request

from shared import telemetry


def install(app: Flask) -> None:
    """Log the client, the status and the duration of every request, except an upload check that was passed: the upload follows."""
    app.before_request(_start_timer)
    app.after_request(_log_request)


def _start_timer() -> None:
    g.started_at = time.perf_counter()


def _log_request(response: Response) -> Response:
    if g.get("is_passed_check"):
        return response
    # The start time is missing if an earlier before_request function refused the request.
    started_at = g.get("started_at", time.perf_counter())
    telemetry.access.info(
        "%s %s %s",
        request.method,
        request.path,
        response.status_code,
        extra={
            "data": {
                "request_id": g.request_id,
                "client": request.remote_addr,
                "status": response.status_code,
                "ms": round((time.perf_counter() - started_at) * 1000, 1),
                "batch_id": g.get("batch_id"),
            }
        },
    )
    return response
