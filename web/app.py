"""Wiring only: settings and services go in, blueprints and guards come together."""

import time

from flask import Flask, Response, g, request

from shared import telemetry
from shared.settings import Settings
from web.batches import views as batches
from web.files import views as files
from web.http import body_stream, origin, problems
from web.http.trusted_proxies import TrustedProxies
from web.inspections import views as inspections
from web.openapi import views as openapi
from web.operations import limits
from web.operations import views as health
from web.pages import error_pages
from web.pages import views as pages
from web.services import Services
from web.uploads import views as uploads

_CSP = "default-src 'self'; img-src 'self' data:; object-src 'none'; frame-ancestors 'none'; base-uri 'none'"


def create_app(settings: Settings | None = None) -> Flask:
    """Build the web application. Nothing is connected before the first request.

    :param settings: else they are read from the environment.
    """
    settings = settings or Settings()
    telemetry.configure(settings.log, "web")
    app = Flask(__name__, static_folder=None)
    app.wsgi_app = TrustedProxies(app.wsgi_app, settings.web.trusted_proxies)  # type: ignore[method-assign]
    app.extensions["shelfsight"] = Services(settings)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    problems.install(app)
    origin.install(app, settings.web)
    body_stream.install(app)
    for module in (uploads, batches, files, inspections, limits, health, openapi, pages):
        app.register_blueprint(module.blueprint)
    app.before_request(_begin)
    app.after_request(_finish)
    error_pages.install(app, pages.blueprint, inspections.blueprint)
    return app


def _begin() -> None:
    g.began = time.perf_counter()


def _finish(answer: Response) -> Response:
    answer.headers["X-Request-ID"] = g.request_id
    answer.headers.setdefault("X-Content-Type-Options", "nosniff")
    if answer.status_code == 204 or request.method == "OPTIONS":
        answer.headers.pop("Content-Type", None)  # there is nothing that could have one
    if answer.mimetype == "text/html":
        answer.headers["Content-Security-Policy"] = _CSP
        answer.headers["Referrer-Policy"] = "same-origin"
    telemetry.access.info(
        "%s %s %s",
        request.method,
        request.path,
        answer.status_code,
        extra={
            "data": {
                "request_id": g.request_id,
                "client": request.remote_addr,
                "status": answer.status_code,
                "ms": round((time.perf_counter() - g.get("began", time.perf_counter())) * 1000, 1),
                "batch_id": g.get("batch_id"),
            }
        },
    )
    return answer
