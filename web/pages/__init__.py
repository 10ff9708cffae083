"""Plain pages for a person: what came in lately, one batch; at the same address as the first, one picture by URL."""

from flask import Blueprint, Response, render_template, request

from shared.errors import NotFound
from shared.ids import is_batch_id
from shared.ledger import pages
from web import edges, inspections, params, render
from web.services import services

blueprint = Blueprint("pages", __name__, template_folder="templates", static_folder="static", static_url_path="/static")
edges.install(blueprint)


@blueprint.get("/")
def start() -> Response | str:
    """Show the newest batches and what waits; with ``url=`` the picture that is there."""
    if "url" in request.args:
        return inspections.look()
    at_work = services()
    values = params.read({"page": params.PAGING["page"]})
    page = values.get("page", 1)
    found = pages.page_of_batches(at_work.db, pages.Filters(), page, 20, 8, at_work.settings.mongo.query_deadline_s)
    batches = [render.batch(one, "") for one in found.batches]
    backlog = at_work.backlog.get()
    base = render.base_url(at_work.settings.web.public_url)
    return render_template("start.html", batches=batches, page=page, pages=found.pages, total=found.total, backlog=backlog, base=base)


@blueprint.get("/batches/<batch_id>")
def batch(batch_id: str) -> Response | str:
    """Show one batch: its pictures, their states, what was found."""
    params.read({})
    if not is_batch_id(batch_id):
        raise NotFound("There is no such batch.")
    return render_template("batch.html", batch=render.batch(pages.get_batch(services().db, batch_id), ""))
