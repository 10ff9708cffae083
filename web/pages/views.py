"""The HTML pages: the start page with the newest batches, and the page of one batch.

With the ``url`` parameter, the path of the start page shows the inspection of one image.
"""

from flask import Blueprint, Response, render_template, request

from shared.errors import NotFound
from shared.ids import is_batch_id
from shared.ledger import queries
from web.batches import filters, serializers
from web.http import query, responses
from web.inspections import views as inspections
from web.pages import user_texts
from web.services import current_services

blueprint = Blueprint("pages", __name__, template_folder="templates", static_folder="static", static_url_path="/static")
user_texts.install(blueprint)


@blueprint.get("/")
def start() -> Response | str:
    """Return the newest batches and the backlog or, if ``url=`` is present, the inspection of the image at this URL."""
    if "url" in request.args:
        return inspections.augment()
    services = current_services()
    values = query.read({"page": filters.PAGING["page"]})
    page = values.get("page", 1)
    found = queries.page_of_batches(services.db, queries.Filters(), page, 20, 8, services.settings.mongo.query_deadline_s)
    batches = [serializers.batch(stored, "") for stored in found.batches]
    backlog = services.backlog.get()
    base = responses.base_url(services.settings.web.public_url)
    return render_template("batches/start.html", batches=batches, page=page, pages=found.pages, total=found.total, backlog=backlog, base=base)


@blueprint.get("/batches/<batch_id>")
def batch(batch_id: str) -> Response | str:
    """Return a page with the images of one batch, their states and what was detected in them."""
    query.read({})
    if not is_batch_id(batch_id):
        raise NotFound("There is no such batch.")
    return render_template("batches/batch.html", batch=serializers.batch(queries.get_batch(current_services().db, batch_id), ""))
