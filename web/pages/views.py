"""The HTML pages: the start page with the newest batches, and the page of one batch.

With the ``url`` parameter, the path of the start page shows the inspection of one image.
"""

from typing import Final

from flask import Blueprint, Response, render_template, request, stream_template

from shared.errors import NotFound
from shared.ids import is_batch_id
from shared.ledger import batch_images, queries
from shared.storage.mongo import Document
from web.batches import filters, serializers
from web.http import query, responses, streams
from web.inspections import views as inspections
from web.pages import user_texts
from web.services import current_services

blueprint = Blueprint("pages", __name__, template_folder="templates", static_folder="static", static_url_path="/static")
user_texts.install(blueprint)
_BATCHES_PER_PAGE: Final = 20
_IMAGES_PER_BATCH: Final = 8
_IMAGES_PER_PAGE: Final = 100
_SHOWN_IN_LIST: Final = dict.fromkeys(("batch_id", "index", "status", "filename", "store_name"), 1)
"""The fields of an image that the start page uses."""
_SHOWN_IN_BATCH: Final = dict.fromkeys(
    (
        "batch_id", "index", "status", "filename", "store_name", "camera_id", "timestamp", "width", "height",
        "detections", "model", "barcodes", "barcode_check", "augmentations.name", "augmentations.file_path", "error",
    ),
    1,
)  # fmt: skip
"""The fields of an image that the page of a batch uses."""


@blueprint.get("/")
def start() -> Response | str:
    """Return the newest batches and the backlog or, if ``url=`` is present, the inspection of the image at this URL."""
    if "url" in request.args:
        return inspections.augment()
    services = current_services()
    values = query.read({"page": filters.PAGING["page"]})
    page = values.get("page", 1)
    deadline_s = services.settings.mongo.query_deadline_s
    found = queries.page_of_batches(services.db, queries.Filters(), page, _BATCHES_PER_PAGE, deadline_s=deadline_s)
    batches = _with_first_images(found.batches, int(deadline_s * 1000))
    backlog = services.backlog.get()
    base = responses.base_url(services.settings.web.public_url)
    return render_template("batches/start.html", batches=batches, page=page, pages=found.pages, total=found.total, backlog=backlog, base=base)


@blueprint.get("/batches/<batch_id>")
def batch(batch_id: str) -> Response:
    """Return a page with up to 100 images of one batch, their states and what was detected in them."""
    services = current_services()
    page = query.read({"page": filters.PAGING["page"]}).get("page", 1)
    if not is_batch_id(batch_id):
        raise NotFound("There is no such batch.")
    found = serializers.batch(queries.get_batch(services.db, batch_id))
    deadline_ms = int(services.settings.mongo.query_deadline_s * 1000)
    count = sum(found["counts"].values())
    skip = min((page - 1) * _IMAGES_PER_PAGE, count)
    stored = batch_images.read_range(services.db, batch_id, skip, _IMAGES_PER_PAGE, deadline_ms, _SHOWN_IN_BATCH)
    parts = stream_template(
        "batches/batch.html",
        batch=found,
        images=(serializers.image(document, "") for document in stored),
        page=page,
        pages=-(-count // _IMAGES_PER_PAGE),
    )
    return streams.streamed_response((part.encode() for part in parts), "text/html")


def _with_first_images(batches: list[Document], deadline_ms: int) -> list[Document]:
    """Convert the batches of the start page to their public form, each with the images that the page shows."""
    totals = {document["_id"]: document["total"] for document in batches}
    shown = {document["_id"]: serializers.batch(document) | {"images": []} for document in batches}
    for batch_id, image in batch_images.read_first(current_services().db, totals, _IMAGES_PER_BATCH, deadline_ms, _SHOWN_IN_LIST):
        if image is None:
            shown[batch_id]["images_more"] = True
        else:
            shown[batch_id]["images"].append(serializers.image(image, ""))
    return list(shown.values())
