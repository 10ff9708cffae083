"""Process many images again."""

from flask import Blueprint, Response

from shared.catalog import bulk_reprocessing
from web import image_filters, job_responses, reprocessing_options, request_bodies, security_events
from web.http import access_rules, query
from web.reprocessing.schemas import BulkReprocessing
from web.services import current_services

blueprint = Blueprint("reprocessing", __name__)


@blueprint.post("/reprocess")
@access_rules.requires("images:write")
def reprocess_images() -> Response:
    """Queue a job that processes the images again that filters name."""
    query.read({})
    body = request_bodies.read(BulkReprocessing)
    services = current_services()
    options, weights_sha256 = reprocessing_options.read(body, body.only, "low")
    filters = image_filters.read_object(services.db, body.filters)
    owner = job_responses.current_owner()
    wanted = bulk_reprocessing.BulkReprocessing(filters, body.only, options, weights_sha256)
    job_id = bulk_reprocessing.request(services.db, wanted, owner, deadline_s=services.settings.mongo.commit_deadline_s)
    details = {"only": body.only, "filters": image_filters.describe(body.filters)}
    security_events.record("images.reprocessed", target=f"job:{job_id}", details=details)
    return job_responses.started(job_id)
