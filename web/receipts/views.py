"""Return the signed receipt of a batch, and verify receipts."""

from functools import partial

from flask import Blueprint, Response

from shared.accounts import receipt_keys
from shared.ledger import receipts
from web import request_bodies
from web.http import access_rules, json_body, json_model, query, responses
from web.http.authentication import current_principal
from web.http.path_ids import check_batch_id
from web.receipts.schemas import ClaimedReceipt
from web.services import current_services

blueprint = Blueprint("receipts", __name__)
MAX_BYTES, MAX_BYTES_PER_IMAGE = 64 * 1024, 1024
"""The maximum size of a receipt, beside and for each image of the largest batch. deploy/nginx has the same. An image has 400 bytes if it is indented."""
_VALUES, _VALUES_PER_IMAGE = 100, 16
"""The maximum number of values of a receipt, beside and for each image. An image has 7."""


@blueprint.get("/image_batches/<batch_id>/receipt")
@access_rules.requires("images:read")
def get_receipt(batch_id: str) -> Response:
    """Return the receipt of a batch, also while some of its images are unfinished."""
    query.read({})
    check_batch_id(batch_id)
    services = current_services()
    timeouts = services.settings.mongo
    receipt = receipts.read(services.db, batch_id, current_principal().stores, int(timeouts.query_deadline_s * 1000))
    key = receipt_keys.obtain(services.db, services.signing_keys.current(), timeouts.commit_deadline_s)
    return responses.json_response(receipts.sign(receipt, key.id, key.secret))


@blueprint.post("/receipts/verify")
@access_rules.requires("images:read")
def verify_receipt() -> Response:
    """Return whether a receipt was signed by this installation, and is unchanged."""
    query.read({})
    services = current_services()
    images = services.settings.limits.max_images
    max_values = _VALUES + _VALUES_PER_IMAGE * images
    content = request_bodies.read_json(max_bytes=MAX_BYTES + MAX_BYTES_PER_IMAGE * images, max_values=max_values)
    json_model.validate(json_body.parse_json(content, max_values), ClaimedReceipt)
    try:
        is_valid = receipts.is_valid(receipts.parse(content), partial(receipt_keys.find, services.db))
    except receipts.Ambiguous:
        is_valid = False
    return responses.json_response({"valid": is_valid})
