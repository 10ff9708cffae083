"""List the workers and what they do."""

from operator import attrgetter
from typing import Any, Final

from flask import Blueprint, Response

from shared.inspections import jobs as inspections
from shared.jobs import claims as job_claims
from shared.ledger import claims as image_claims
from shared.queue import heartbeats, holdings
from shared.queue.heartbeats import Worker
from shared.queue.holdings import Holding
from shared.queues import IMAGES, INSPECTIONS, JOBS
from shared.storage.mongo import Db
from web.admin import serializers
from web.http import access_rules, authentication, cursor_pages, query
from web.services import current_services

blueprint = Blueprint("admin_workers", __name__)
_LEASES: Final = {IMAGES: image_claims.LEASES, INSPECTIONS: inspections.LEASES, JOBS: job_claims.LEASES}
MAX_ID_LENGTH: Final = 200


@blueprint.get("/admin/workers")
@access_rules.requires("admin")
def list_workers() -> Response:
    """List the workers in the order of their ids, with what each of them holds. Dead ones are listed for an hour."""
    paging = cursor_pages.read_paging(query.read(cursor_pages.PARAMETERS), is_key=lambda text: len(text) <= MAX_ID_LENGTH)
    authentication.require_all_stores()
    db = current_services().db
    workers = heartbeats.list_workers(db, after=paging.after, limit=paging.limit)
    held = _find_held(db, workers)

    def show(worker: Worker) -> dict[str, Any]:
        return serializers.worker(worker, held.get(worker.id))

    return cursor_pages.page("workers", workers, paging, key_of=attrgetter("id"), show=show)


def _find_held(db: Db, workers: list[Worker]) -> dict[str, Holding]:
    """Return what each worker holds. A dead one holds its claims until their leases have expired."""
    held: dict[str, Holding] = {}
    for queue, leases in _LEASES.items():
        held |= holdings.find_held(db, leases, [worker.id for worker in workers if worker.queue == queue])
    return held
