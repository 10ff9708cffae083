"""Show the work queues, pause and resume them."""

from operator import attrgetter
from typing import Any, Final

from flask import Blueprint, Response, current_app
from flask.blueprints import BlueprintSetupState

from shared.errors import NotFound
from shared.queue import pauses
from shared.queues import QUEUES, WorkQueue
from web import request_bodies, security_events
from web.admin import measurements, serializers
from web.cached_value import CachedValue
from web.http import access_rules, authentication, cursor_pages, query, responses
from web.http.json_model import NoMembers
from web.services import Services, current_services

blueprint = Blueprint("admin_queues", __name__)
_MEASURED: Final = "measured_queues"


@blueprint.record
def _prepare(state: BlueprintSetupState) -> None:
    services: Services = state.app.extensions["shelfsight"]
    state.app.extensions[_MEASURED] = CachedValue(measurements.MAX_AGE_S, lambda: measurements.measure(services.db))


@blueprint.get("/admin/queues")
@access_rules.requires("admin")
def list_queues() -> Response:
    """Return the work queues: what waits, how fast it is processed, when it will be finished, and who has paused them."""
    labels = [queue.label for queue in QUEUES]
    paging = cursor_pages.read_paging(query.read(cursor_pages.PARAMETERS), is_key=labels.__contains__)
    authentication.require_all_stores()
    measured = current_app.extensions[_MEASURED].get()
    paused = pauses.read_pauses(current_services().db)
    begin = 0 if paging.after is None else labels.index(paging.after) + 1
    found = QUEUES[begin : begin + paging.limit]

    def show(queue: WorkQueue) -> dict[str, Any]:
        return serializers.queue(queue, measured[queue], paused.get(queue))

    return cursor_pages.page("queues", found, paging, key_of=attrgetter("label"), show=show)


@blueprint.post("/admin/queues/<queue_name>/pause")
@access_rules.requires("admin")
def pause_queue(queue_name: str) -> Response:
    """Let the workers of a queue claim nothing more. They finish what they hold."""
    queue = _read_request(queue_name)
    services = current_services()
    if pauses.pause(services.db, queue, authentication.current_principal().by):
        security_events.record("queue.paused", target=f"queue:{queue.label}")
    return _state(queue)


@blueprint.post("/admin/queues/<queue_name>/resume")
@access_rules.requires("admin")
def resume_queue(queue_name: str) -> Response:
    """Let the workers of a paused queue claim work again."""
    queue = _read_request(queue_name)
    services = current_services()
    if pauses.resume(services.db, queue):
        security_events.record("queue.resumed", target=f"queue:{queue.label}")
    services.submit(services.wakeups[queue].publish)
    return _state(queue)


def _read_request(queue_name: str) -> WorkQueue:
    """Check the request, and return the queue that it names.

    :raises NotFound: when there is no such queue.
    :raises Forbidden: when the principal is limited to some stores (``all_stores_required``).
    """
    query.read({})
    request_bodies.read(NoMembers)
    authentication.require_all_stores()
    queue = next((queue for queue in QUEUES if queue.label == queue_name), None)
    if queue is None:
        raise NotFound(f"There is no such queue. The queues are {', '.join(queue.label for queue in QUEUES)}.")
    return queue


def _state(queue: WorkQueue) -> Response:
    measured = current_app.extensions[_MEASURED].get()[queue]
    return responses.json_response(serializers.queue(queue, measured, pauses.read_pauses(current_services().db).get(queue)))
