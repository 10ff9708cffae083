"""The web application: settings, services, middleware and blueprints wired together."""

from flask import Flask

from shared import telemetry
from shared.settings import Settings
from web.batches import views as batches
from web.files import views as files
from web.http import access_log, body_stream, origin, problems, request_id, security_headers
from web.http.trusted_proxies import TrustedProxies
from web.inspections import views as inspections
from web.openapi import views as openapi
from web.operations import limits
from web.operations import views as operations
from web.pages import error_pages
from web.pages import views as pages
from web.services import Services
from web.uploads import views as uploads


def create_app(settings: Settings | None = None) -> Flask:
    """Build the web application. No connection is opened before the first request.

    :param settings: read from the environment if None.
    """
    settings = settings or Settings()
    telemetry.configure(settings.log, "web")
    app = Flask(__name__, static_folder=None)
    app.wsgi_app = TrustedProxies(app.wsgi_app, settings.web.trusted_proxies)  # type: ignore[method-assign]
    app.extensions["shelfsight"] = Services(settings)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    # Flask calls before_request functions in this order, after_request functions in the reverse order.
    request_id.install(app)
    problems.install(app)
    origin.install(app, settings.web)
    body_stream.install(app)
    access_log.install(app)
    security_headers.install(app)
    error_pages.install(app, pages.blueprint, inspections.blueprint)
    for module in (uploads, batches, files, inspections, limits, operations, openapi, pages):
        app.register_blueprint(module.blueprint)
    return app
