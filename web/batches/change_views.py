"""Cancel a batch, and process its images again."""

from flask import Blueprint, Response

from shared.ledger import cancellation, reprocessing
from shared.queues import IMAGES
from web import reprocessing_options, request_bodies, security_events
from web.http import access_rules, query, responses
from web.http.authentication import current_principal
from web.http.json_model import NoMembers
from web.http.path_ids import check_batch_id
from web.reprocessing_options import Reprocessing
from web.services import current_services

blueprint = Blueprint("batch_changes", __name__)


@blueprint.post("/image_batches/<batch_id>/cancel")
@access_rules.requires("images:write")
def cancel_batch(batch_id: str) -> Response:
    """End the queued images of a batch. The principal needs access to all its stores."""
    query.read({})
    check_batch_id(batch_id)
    request_bodies.read(NoMembers)
    services, principal = current_services(), current_principal()
    cancelled = cancellation.cancel(
        services.db, batch_id, principal.stores, by=principal.by, deadline_s=services.settings.mongo.commit_deadline_s
    )
    security_events.record("batch.cancelled", target=f"batch:{batch_id}", details={"images": cancelled.cancelled})
    return responses.json_response({"cancelled": cancelled.cancelled, "running": cancelled.running}, 202)


@blueprint.post("/image_batches/<batch_id>/reprocess")
@access_rules.requires("images:write")
def reprocess_batch(batch_id: str) -> Response:
    """Queue finished images of a batch again. The principal needs access to all its stores."""
    query.read({})
    check_batch_id(batch_id)
    body = request_bodies.read(Reprocessing)
    options, weights_sha256 = reprocessing_options.read(body, body.only, "normal")
    choice = reprocessing.choose(body.only, options, weights_sha256)
    services = current_services()
    requeued = reprocessing.reprocess(
        services.db, batch_id, choice, options, current_principal().stores, deadline_s=services.settings.mongo.commit_deadline_s
    )
    if requeued.queued:
        services.submit(services.wakeups[IMAGES].publish)
        details = {"only": body.only, "images": requeued.queued, "generation": requeued.generation}
        security_events.record("batch.reprocessed", target=f"batch:{batch_id}", details=details)
    return responses.json_response({"queued": requeued.queued, "generation": requeued.generation}, 202)
