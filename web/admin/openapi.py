"""The OpenAPI description of the queues, the workers and the images that have failed."""

from typing import Any, Final

from pydantic import BaseModel

from shared.catalog.dead_letter_retries import MAX_IDS
from shared.ledger.dead_letters import MAX_SEARCHED
from shared.queues import QUEUES
from web.admin.schemas import DeadLetterPage, DeadLetterRetry, DeadLettersQueued, Queue, QueueList, Worker, WorkerPage
from web.admin.workers import MAX_ID_LENGTH
from web.http.json_model import NoMembers
from web.http.openapi_components import (
    ID,
    JSON_BODY_CODES,
    job_started,
    json_content,
    paging_parameters,
    parameter,
    path_id,
    problem_responses,
    ref,
)

MODELS: Final[tuple[type[BaseModel], ...]] = (
    Queue, QueueList, Worker, WorkerPage, DeadLetterPage, DeadLetterRetry, DeadLettersQueued, NoMembers,
)  # fmt: skip
_PAUSE: Final = (
    "The workers of the queue finish what they hold and claim nothing more, also after a restart, until it is resumed. A worker continues the "
    "job that it holds until its time for jobs is over (WORKER_TASK_S, four seconds by default); then the job is left half done until the queue is resumed. "
    "Uploads and jobs are accepted and wait, but when the oldest images have waited for LIMITS_MAX_QUEUE_AGE_S (a day by default), uploads "
    "are refused with 429 temporary_reduced_capacity until workers take images up again. A request for a new inspection is refused with 503 queue_paused. "
    "A paused queue stays paused."
)
_RESUME: Final = "The workers claim work again. A queue that is not paused stays as it is."
_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": 200}
_WORKERS: Final = "A worker that has died is listed for an hour."
_DEAD_LETTERS: Final = (
    "The images are those of one's own stores. With a filter, or for somebody with access to some stores only, a page is "
    f"searched among {MAX_SEARCHED:,} failed images, so it can be short or empty although `next_cursor` is set."
)
_RETRY: Final = (
    f"Up to {MAX_IDS:,} images are queued at once, by their ids, or any number in a job, by filters. They are processed as the last time. "
    "Images that are not failed any more are left: those that wait or are being processed keep the options of the request that queued them. "
    "The request needs access to all stores of the batches of the ids; a job leaves the images of batches with images of other stores."
)


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for queues, workers and images that have failed."""
    return {
        "/admin/queues": {"get": _list_queues()},
        "/admin/queues/{queue_name}/pause": {"post": _change("pauseQueue", "Pause a queue", _PAUSE)},
        "/admin/queues/{queue_name}/resume": {"post": _change("resumeQueue", "Resume a paused queue", _RESUME)},
        "/admin/workers": {"get": _list_workers()},
        "/admin/dead-letters": {"get": _list_dead_letters()},
        "/admin/dead-letters/retry": {"post": _retry_dead_letters()},
    }


def _list_queues() -> dict[str, Any]:
    return {
        "operationId": "listQueues",
        "summary": "List the work queues",
        "description": "Shows what waits, how fast it is processed, when it will be finished, and who has paused the queues.",
        "parameters": paging_parameters({"type": "string", "enum": [queue.label for queue in QUEUES]}),
        "responses": {"200": json_content("The queues", "QueueList")}
        | problem_responses("all_stores_required", "invalid", "bad_cursor", "database_unavailable"),
    }


def _change(operation_id: str, summary: str, description: str) -> dict[str, Any]:
    return {
        "operationId": operation_id,
        "summary": summary,
        "description": description,
        "parameters": [path_id("queue_name")],
        "requestBody": {"required": False, "content": {"application/json": {"schema": ref("NoMembers")}}},
        "responses": {"200": json_content("The queue", "Queue")} | problem_responses(*JSON_BODY_CODES, "all_stores_required", "not_found", "database_unavailable"),
    }


def _list_workers() -> dict[str, Any]:
    return {
        "operationId": "listWorkers",
        "summary": "List the workers, what they hold, and how fast they are",
        "description": _WORKERS,
        "parameters": paging_parameters({"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH}),
        "responses": {"200": json_content("A page of workers", "WorkerPage")}
        | problem_responses("all_stores_required", "invalid", "bad_cursor", "database_unavailable"),
    }


def _list_dead_letters() -> dict[str, Any]:
    filters = [parameter("code", _TEXT | {"description": "The code of the error"}), parameter("store_name", _TEXT)]
    return {
        "operationId": "listDeadLetters",
        "summary": "List failed images, the newest first",
        "description": _DEAD_LETTERS,
        "parameters": [*filters, *paging_parameters({"type": "string", "pattern": ID["image_id"]})],
        "responses": {"200": json_content("A page of failed images", "DeadLetterPage")}
        | problem_responses("invalid", "bad_cursor", "database_unavailable", "query_too_slow"),
    }


def _retry_dead_letters() -> dict[str, Any]:
    started = job_started("The images were queued, or a job that queues them")
    either = {"anyOf": [ref("DeadLettersQueued"), ref("JobStarted")]}
    started["content"]["application/json"]["schema"] = either
    codes = ("database_unavailable", "unknown_image", "foreign_store", "too_many_jobs", "update_unfinished", "not_supported", "query_too_slow")
    return {
        "operationId": "retryDeadLetters",
        "summary": "Process failed images again, by ids or by filters",
        "description": _RETRY,
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref("DeadLetterRetry")}}},
        "responses": {"202": started} | problem_responses(*JSON_BODY_CODES, *codes),
    }
