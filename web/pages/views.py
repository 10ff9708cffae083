"""Plain pages for a person: what came in lately, one batch; at the same address as the first, one picture by URL."""

from flask import Blueprint, Response, render_template, request

from shared.errors import NotFound
from shared.ids import is_batch_id
from shared.ledger import queries
from web.batches import serializers
from web.http import query
from web.inspections import views as inspections
from web.pages import error_pages
from web.services import current_services

blueprint = Blueprint("pages", __name__, template_folder="templates", static_folder="static", static_url_path="/static")
error_pages.install(blueprint)


@blueprint.get("/")
def start() -> Response | str:
    """Show the newest batches and what waits; with ``url=`` the picture that is there."""
    if "url" in request.args:
        return inspections.look()
    services = current_services()
    values = query.read({"page": query.PAGING["page"]})
    page = values.get("page", 1)
    found = queries.page_of_batches(services.db, queries.Filters(), page, 20, 8, services.settings.mongo.query_deadline_s)
    batches = [serializers.batch(one, "") for one in found.batches]
    backlog = services.backlog.get()
    base = serializers.base_url(services.settings.web.public_url)
    return render_template("batches/start.html", batches=batches, page=page, pages=found.pages, total=found.total, backlog=backlog, base=base)


@blueprint.get("/batches/<batch_id>")
def batch(batch_id: str) -> Response | str:
    """Show one batch: its pictures, their states, what was found."""
    query.read({})
    if not is_batch_id(batch_id):
        raise NotFound("There is no such batch.")
    return render_template("batches/batch.html", batch=serializers.batch(queries.get_batch(current_services().db, batch_id), ""))
