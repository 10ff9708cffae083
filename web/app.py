"""Create the web application from its settings, services, middleware and blueprints."""

from flask import Flask

from shared import telemetry
from shared.settings import Settings
from web import security_events
from web.accounts import api_keys, sign_in, users
from web.admin import dead_letters as admin_dead_letters
from web.admin import queues as admin_queues
from web.admin import workers as admin_workers
from web.annotations import views as annotations
from web.audit import views as audit
from web.batches import change_views as batch_changes
from web.batches import views as batches
from web.files import views as files
from web.http import (
    access_log,
    access_rules,
    authentication,
    body_stream,
    cors,
    origin,
    private_responses,
    problems,
    query,
    rate_limit_headers,
    request_id,
    request_rates,
    security_headers,
    session_cookie,
    upload_checks,
)
from web.http.authentication import CredentialChecks
from web.http.trusted_proxies import TrustedProxies
from web.images import list_views, similar_views, timeline_views
from web.images import views as images
from web.inspections import views as inspections
from web.jobs import views as jobs
from web.openapi import views as openapi
from web.operations import limits
from web.operations import views as operations
from web.pages import account_views as account_pages
from web.pages import error_pages
from web.pages import views as pages
from web.receipts import views as receipts
from web.reprocessing import views as reprocessing
from web.services import Services
from web.tags import bulk_views, image_views, suggestion_views
from web.tags import views as tags
from web.uploads import views as uploads


def create_app(settings: Settings | None = None) -> Flask:
    """Create the web application. The application opens no connection before the first request.

    :param settings: the settings of the application. If None, they are read from the environment.
    """
    settings = settings or Settings()
    telemetry.configure(settings.log, "web")
    app = Flask(__name__, static_folder=None)
    app.wsgi_app = TrustedProxies(app.wsgi_app, settings.web.trusted_proxies)  # type: ignore[method-assign]  # Flask documents this assignment as the way to add middleware
    app.extensions["shelfsight"] = services = Services(settings)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the declared type is the base class of the provider that Flask creates
    # Flask calls the before_request functions in this order, and the after_request functions in the reverse order.
    request_id.install(app)
    problems.install(app)
    upload_checks.install_answers(app)
    security_events.install(app)
    rate_limit_headers.install(app)
    origin.install(app, settings.web, checks_host=not settings.access.is_on)
    cors.install(app, settings.web.cors_origins)
    session_cookie.install(app)
    # Find out who makes the request, count it, check whether they may make it, and end it if it only asks this. Requests that
    # are refused with 401 or 403 count, too.
    checks = CredentialChecks(services.authenticator.authenticate, services.authenticator.authenticate_cookie, services.url_signer)
    authentication.install(app, checks, security_events.record_key_use, is_on=settings.access.is_on)
    if settings.access.is_on:
        request_rates.install(app, services.rate_limiter, settings.rates)
    authentication.install_enforcement(app, services.csrf_tokens)
    upload_checks.install(app)
    query.install(app)
    body_stream.install(app)
    access_log.install(app)
    private_responses.install(app, is_on=settings.access.is_on)
    security_headers.install(app)
    error_pages.install(app, pages.blueprint, account_pages.blueprint, inspections.blueprint)
    for module in (
        uploads, batches, batch_changes, receipts, list_views, images, similar_views, timeline_views, tags, image_views, bulk_views,
        suggestion_views, annotations, jobs, reprocessing, files, inspections, limits, operations, openapi, pages, account_pages,
        sign_in, users, api_keys, audit, admin_queues, admin_workers, admin_dead_letters,
    ):  # fmt: skip
        app.register_blueprint(module.blueprint)
    access_rules.install(app, public_endpoints=[f"{pages.blueprint.name}.static"])
    return app
