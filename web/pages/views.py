"""The HTML pages: the start page with the newest batches, and the page of one batch.

With the ``url`` parameter, the path of the start page shows the inspection of one image.
"""

from typing import Any, Final

from flask import Blueprint, Response, render_template, request, stream_template

from shared.allowed_stores import AllowedStores
from shared.ledger import batch_images, queries
from shared.ledger.filters import Filters
from shared.ledger.shown_results import FIELDS, shown_fence
from shared.storage.mongo import Document
from web import file_urls, signed_in_user
from web.batches import paging, parameters, serializers
from web.http import access_rules, query, responses, streams
from web.http.authentication import current_principal
from web.http.path_ids import check_batch_id
from web.image_serializer import ImageSerializer
from web.inspections import views as inspections
from web.pages import user_texts
from web.services import current_services

blueprint = Blueprint("pages", __name__, template_folder="templates", static_folder="static", static_url_path="/static")
user_texts.install(blueprint)


@blueprint.app_context_processor
def _describe_user() -> dict[str, Any]:
    """Return what the header of every page shows, and the token for the requests of its scripts."""
    return {"signed_in_user": signed_in_user.find(), "csrf_token": signed_in_user.csrf_token(), "has_accounts": current_services().settings.access.is_on}


_BATCHES_PER_PAGE: Final = 20
_IMAGES_PER_BATCH: Final = 8
_IMAGES_PER_PAGE: Final = 100
_SHOWN_IN_LIST: Final = dict.fromkeys(("batch_id", "index", "filename", "store_name", *FIELDS), 1)
"""The fields of an image that the start page uses."""
_SHOWN_IN_BATCH: Final = dict.fromkeys(
    (
        "batch_id", "index", "filename", "store_name", "camera_id", "timestamp", "width", "height", "detections", "model",
        "barcodes", "barcode_check", "augmentations.name", "augmentations.file_path", "error", *FIELDS,
    ),
    1,
)  # fmt: skip
"""The fields of an image that the page of a batch uses."""


@blueprint.get("/")
@access_rules.requires("images:read")
def start() -> Response | str:
    """Return the newest batches and the backlog or, if ``url=`` is present, the inspection of the image at this URL."""
    if "url" in request.args:
        return inspections.augment()
    services, stores = current_services(), current_principal().stores
    values = query.read({name: parameters.PAGING[name] for name in ("page", "cursor")})
    found = paging.read_page(Filters(), stores, values, _BATCHES_PER_PAGE)
    page = None if "cursor" in values else values.get("page", 1)
    return render_template(
        "batches/start.html",
        batches=_with_first_images(found.batches, stores),
        page=page,
        pages=found.pages,
        total=found.total,
        older=paging.next_position(found, page, _BATCHES_PER_PAGE),
        backlog=services.backlog.get() if stores is None else None,  # it is that of all stores
        base=responses.base_url(services.settings.web.public_url),
    )


@blueprint.get("/batches/<batch_id>")
@access_rules.requires("images:read")
def batch(batch_id: str) -> Response:
    """Return a page with up to 100 images of one batch, their states and what was detected in them."""
    services, stores = current_services(), current_principal().stores
    page = query.read({"page": parameters.PAGING["page"]}).get("page", 1)
    check_batch_id(batch_id)
    found = serializers.batch(queries.get_batch(services.db, batch_id, stores))
    count = sum(found["counts"].values())
    skip = min((page - 1) * _IMAGES_PER_PAGE, count)
    stored = batch_images.read_range(services.db, batch_id, stores, skip, _IMAGES_PER_PAGE, _deadline_ms(), _SHOWN_IN_BATCH)
    serializer = ImageSerializer(file_urls.relative())
    parts = stream_template(
        "batches/batch.html",
        batch=found,
        images=(_with_result(document, serializer) for document in stored),
        page=page,
        pages=-(-count // _IMAGES_PER_PAGE),
    )
    return streams.streamed_response((part.encode() for part in parts), "text/html")


def _with_first_images(batches: list[Document], stores: AllowedStores) -> list[Document]:
    """Convert the batches of the start page to their public form, each with the images that the page shows."""
    db = current_services().db
    totals = {document["_id"]: document["total"] for document in batches}
    shown = {document["_id"]: serializers.batch(document) | {"images": []} for document in batches}
    serializer = ImageSerializer(file_urls.relative())
    for batch_id, image in batch_images.read_first(db, totals, stores, _IMAGES_PER_BATCH, _deadline_ms(), _SHOWN_IN_LIST):
        if image is None:
            shown[batch_id]["images_more"] = True
        else:
            shown[batch_id]["images"].append(_with_result(image, serializer))
    return list(shown.values())


def _with_result(image: Document, serializer: ImageSerializer) -> Document:
    """Convert a stored image to the form that the pages show. ``has_result`` says whether it has a result, which can be an earlier one."""
    has_result = shown_fence(image) is not None
    return serializer.image(image) | {"has_result": has_result}


def _deadline_ms() -> int:
    return int(current_services().settings.mongo.query_deadline_s * 1000)
