"""The pydantic models for queues, workers and failed images. They validate requests, and OpenAPI is generated from them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from shared.catalog.dead_letter_retries import MAX_IDS
from shared.ids import IMAGE_ID_PATTERN
from shared.ledger.dead_letters import FAILURES_READ

_ImageId = Annotated[str, StringConstraints(strict=True, pattern=f"^{IMAGE_ID_PATTERN}$")]
_FILTERS = (
    "The filters of GET /images by name, except for `status`, and `code`, the code of the error. An empty object means all failed images."
)
_EITHER: dict[str, Any] = {"oneOf": [{"required": ["ids"]}, {"required": ["filters"]}]}
"""What the view checks, because no type of pydantic says it."""
_RETRIES: list[Any] = [{"filters": {"code": "truncated", "store_name": "north"}}, {"filters": {}}, {"ids": ["0123456789abcdef0123456789abcdef0000"]}]


class StoreWaiting(BaseModel):
    """The waiting images of a store."""

    store_name: str
    waiting: int
    oldest_age_s: float


class Queue(BaseModel):
    """A work queue. All numbers except the state of the pause can be three seconds old."""

    name: Literal["images", "inspections", "jobs"]
    paused: bool
    paused_by: str | None = Field(description="Who paused the queue; null while access is open")
    paused_at: datetime | None
    waiting: int
    running: int
    oldest_age_s: float = Field(description="For how many seconds the oldest has waited; 0 if nothing waits")
    rate_per_minute: float | None = Field(
        description="What the workers that are alive have finished per minute of the last two minutes, whether they had work or not; null while no worker has reported it"
    )
    eta_s: int | None = Field(
        description="In how many seconds what waits now will be finished, if the workers need as long for it as for what they did last. 0 if nothing waits; null if the queue is paused, no worker can work, or none has finished anything for an hour"
    )
    workers: int = Field(description="The number of workers that are alive and can work")
    by_store: list[StoreWaiting] = Field(description="Up to 100 stores with waiting images, those with most images first; empty for the other queues")
    stores_more: bool = Field(description="Whether more stores or images wait than by_store and oldest_age_s are about: they count the 20,000 images that were accepted first")


class QueueList(BaseModel):
    """The work queues."""

    queues: list[Queue]
    next_cursor: str | None


class WorkerModel(BaseModel):
    """The model with which a worker processes images."""

    name: str
    version: str
    weights_sha256: str


class Doing(BaseModel):
    """What a worker holds now. One of the numbers is not 0."""

    images: int
    inspections: int
    jobs: int
    ids: list[str] = Field(description="Some of the ids, up to 10")
    since: datetime | None = Field(description="When the oldest of its claims was made; null if an older version made it")


class Worker(BaseModel):
    """A worker: one process that claims and processes work. Null members are unknown, or do not apply."""

    id: str
    queue: Literal["images", "inspections", "jobs"] | None
    host: str
    pid: int
    started_at: datetime | None
    last_seen: datetime
    alive: bool = Field(description="Whether its last heartbeat is at most 15 seconds old")
    impediment: str | None = Field(description="The code of the error that prevents it from working")
    model: WorkerModel | None
    finished_per_minute: float | None
    doing: Doing | None


class WorkerPage(BaseModel):
    """A page of the list of workers, in the order of their ids."""

    workers: list[Worker]
    next_cursor: str | None


class DeadLetter(BaseModel):
    """An image that has failed and has no result. ``attempts`` is the number of times that a worker has taken it."""

    id: str
    batch_id: str
    index: int
    store_name: str
    camera_id: str
    code: str
    detail: str
    attempts: int
    failed_at: datetime | None


class DeadLetterPage(BaseModel):
    """A page of images that have failed, the newest first. It can be empty although there is another page."""

    dead_letters: list[DeadLetter]
    next_cursor: str | None
    codes: dict[str, int] = Field(description=f"The number of images by error code, among the newest {FAILURES_READ:,} failed images")


class DeadLetterRetry(BaseModel):
    """Which failed images to process again, either by their ids or by filters."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_EITHER | {"examples": _RETRIES})

    ids: Annotated[list[_ImageId], Field(default_factory=list, max_length=MAX_IDS, json_schema_extra={"minItems": 1})]
    filters: Annotated[dict[str, Any], Field(default_factory=dict, description=_FILTERS)]


class DeadLettersQueued(BaseModel):
    """The number of images that were queued."""

    queued: int
