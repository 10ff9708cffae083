"""Queues finished images again, so that they are processed once more.

Each step is a write that can be repeated, and none needs a transaction over many images:

1. The batch is opened again with a higher generation, and its field ``reprocessing`` names the chosen images.
2. Those of the images that are finished and have a lower generation are queued. They keep the fields and the files of their
   result until there is a new one (``shared.ledger.shown_results``).
3. The field ``reprocessing`` is removed. Until then, the batch cannot be closed.

If a process dies in between, the sweep does the rest (``complete``).
"""

import time
from collections.abc import Collection as Several
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from pymongo import UpdateMany, UpdateOne

from shared import failpoints
from shared.allowed_stores import AllowedStores
from shared.errors import Conflict, StoreAway
from shared.ids import batch_of, image_id, new_id
from shared.ledger import shown_results, sums, timelines, turns, whole_batches
from shared.states import BatchState, ImageState
from shared.storage.migrations import update_end
from shared.storage.mongo import Db, Document, deadline, majority
from shared.storage.schema import ENDED_STATES

_TRIES: Final = 8
_TRIES_OF_MANY: Final = 3
_PAUSE_S: Final = 0.03
_REPAIR_S: Final = 10.0
_CANCELLING_RETRY_S: Final = 2
_IS_OPEN: Final = {"$eq": ["$open", True]}
_OPENED: Final = {
    "open": True,
    "spooled": True,
    "unswept": True,
    "status": BatchState.QUEUED.value,
    "counts": None,
    "finished_at": None,
    "opened_at": {"$cond": [_IS_OPEN, {"$ifNull": ["$opened_at", "$created_at"]}, "$$NOW"]},
}
_BY_BATCH: Final = [("batch_id", 1), ("index", 1)]
_FIRST: Final = {
    "status": ImageState.QUEUED.value,
    "work.not_before": "$$NOW",
    "work.queued_at": "$$NOW",
    "work.solo": False,
    "work.releases": 0,
    "work.faults": 0,
    "updated_at": "$$NOW",
    "shown": shown_results.SHOWN,
}
_AT_LEAST_NORMAL: Final = {"$cond": [{"$eq": ["$work.priority", "low"]}, "$$REMOVE", "$work.priority"]}
_REMOVED: Final = ("work.losses", "work.begun", "work.read_errors", "work.released_for")


Only = Literal["failed", "all", "stale", "cancelled"]
"""Which finished images a request chooses; see ``choose``."""


@dataclass(frozen=True, slots=True)
class Options:
    """How images are processed again. None means: as the last time.

    ``by`` is who has requested it, and ``job`` the id of the job that does it, if it is one. With the ``priority`` ``low``, the
    images get it. With ``normal``, those get it whose priority is low. ``only`` says in the timelines which images the request is about.
    """

    augmentations: tuple[str, ...] | None = None
    detect: bool | None = None
    by: str | None = None
    job: str | None = None
    priority: Literal["normal", "low"] | None = None
    only: str | None = None


@dataclass(frozen=True, slots=True)
class Requeued:
    """The number of images that a request has queued, and the generation of the batch since then."""

    queued: int
    generation: int


def choose(only: str, options: Options, weights_sha256: str | None) -> Document:
    """Return the query for the images that a request chooses.

    :param only: ``all``, ``failed``, ``cancelled``, or ``stale``: done images that would get another result now, because the
        model, the options or this code differ from those of their result.
    :param weights_sha256: the digest of the weights of the active model. Only ``stale`` needs it.
    """
    if only == "stale":
        return _stale(options, weights_sha256)
    return {} if only == "all" else {"status": only}


def reprocess(
    db: Db, batch_id: str, choice: Mapping[str, Any], options: Options, stores: AllowedStores, *, deadline_s: float = 10.0
) -> Requeued:
    """Queue the finished images of a batch that meet a condition. Images that wait or are being processed are left.

    If it is interrupted after the first write, the sweep does the rest.

    :param choice: the query for the images. If none meets it, nothing is changed.
    :param stores: the stores in which the caller may change images. The batch must have images of no others.
    :raises NotFound: when the batch is unknown or deleted.
    :raises Forbidden: when an image belongs to another store (``foreign_store``).
    :raises Conflict: when the batch is being cancelled (``batch_cancelling``), or an update of the service is not finished
        (``update_unfinished``).
    :raises StoreAway: when MongoDB does not respond. The images may still be queued.
    """
    with deadline(deadline_s):
        check_update(db)
        for attempt in range(_TRIES):
            time.sleep(attempt * _PAUSE_S)  # until a majority has the mark of another request
            fields = dict.fromkeys(("generation", "reprocessing", "cancelling"), 1)
            header = db.batches.find_one(whole_batches.query(batch_id, stores), fields)
            if header is None:
                raise whole_batches.refusal(db, batch_id)
            if header.get("cancelling"):
                raise _cancelling(batch_id)
            if "reprocessing" in header:
                _complete(db, [batch_id])
                continue
            chosen = _read_chosen(db, {"batch_id": batch_id}, choice, {batch_id: header["generation"]}, hint=_BY_BATCH)
            if not chosen:
                return Requeued(0, header["generation"])
            failpoints.reach("13-reprocessing-chosen")
            if _mark(db, chosen, options, stores):
                _complete(db, [batch_id])
                generation = header["generation"] + 1
                queued = {"batch_id": batch_id, "work.generation": generation}  # deleted ones are not among them
                return Requeued(db.images.count_documents(queued, hint=_BY_BATCH), generation)
    raise StoreAway("The batch is being changed by other requests; retry later.", retry_after=2)


def reprocess_images(
    db: Db, image_ids: Several[str], choice: Mapping[str, Any], options: Options, stores: AllowedStores, *, deadline_s: float = 30.0
) -> dict[str, int]:
    """Queue those of the images that are finished and meet a condition, and return their number by the ids of their batches.

    Images of a batch with images of other stores than ``stores``, or that is being cancelled, are left. So are those of a
    batch that other requests change again and again at this moment.

    :param image_ids: at most a few thousand.
    :param choice: the query for the images. It is evaluated after the batches were read, so an image that another request has
        queued in the meantime is not queued by this one.
    :raises Conflict: when an update of the service is not finished (``update_unfinished``).
    :raises StoreAway: when MongoDB does not respond. The images may still be queued.
    """
    queued: dict[str, int] = {}
    left = {batch_of(name) for name in image_ids}
    with deadline(deadline_s):
        check_update(db)
        for attempt in range(_TRIES_OF_MANY):
            time.sleep(attempt * _PAUSE_S)  # until a majority has the marks of other requests
            query = whole_batches.query_many(left, stores) | {"cancelling": None}
            headers = {row["_id"]: row for row in db.batches.find(query, {"generation": 1, "reprocessing.generation": 1})}
            busy = {batch_id for batch_id, header in headers.items() if "reprocessing" in header}
            generations = {batch_id: header["generation"] for batch_id, header in headers.items() if batch_id not in busy}
            among = {"_id": {"$in": [name for name in image_ids if batch_of(name) in generations]}}
            chosen = _read_chosen(db, among, choice, generations, hint="_id_")
            marked = _mark(db, chosen, options, stores)
            _complete(db, busy.union(marked))
            queued |= {batch_id: len(chosen[batch_id].indexes) for batch_id in marked}
            left = busy.union(chosen).difference(marked)
            if not left:
                break
    return queued


def find_marked(db: Db, limit: int) -> list[str]:
    """Return the ids of batches whose reprocessing has not been completed (called by the sweep).

    :raises StoreAway: when MongoDB does not respond.
    """
    with deadline(_REPAIR_S):
        marked = majority(db, "batches").find({"reprocessing.generation": {"$gt": 0}}, {"_id": 1}, hint="reprocessing")
        return [row["_id"] for row in marked.limit(limit)]


def complete(db: Db, batch_ids: Several[str]) -> None:
    """Queue the images of batches whose reprocessing was interrupted (called by the sweep).

    :raises StoreAway: when MongoDB does not respond.
    """
    with deadline(_REPAIR_S):
        _complete(db, batch_ids)


def check_update(db: Db) -> None:
    """Refuse to reprocess images, and to cancel batches, while processes of the version before can be running.

    Their sweeps delete all files but those of the last claim, their workers do not write ``shown``, and both close a batch
    without removing its mark.

    :raises Conflict: ``update_unfinished``.
    """
    if not update_end.is_update_finished(db):
        raise Conflict(
            "Processes of the version before can still be running. When they have ended, run scripts/admin migrate --finish, and repeat the request.",
            code="update_unfinished",
        )


def _cancelling(batch_id: str) -> Conflict:
    detail = f"The batch is being cancelled. Retry when it is finished; `GET /image_batches/{batch_id}?wait=30` waits for that."
    return Conflict(detail, code="batch_cancelling", retry_after=_CANCELLING_RETRY_S)


class _Chosen(NamedTuple):
    """The chosen images of a batch: the generation of the batch, the indexes of the images, and the bytes of their originals."""

    generation: int
    indexes: list[int]
    bytes: int


def _read_chosen(db: Db, among: Document, choice: Mapping[str, Any], generations: Mapping[str, int], hint: Any) -> dict[str, _Chosen]:
    """Return those of the images of batches that are finished and meet a condition.

    :param generations: the batches, with their generations.
    """
    images = {"$and": [among | {"status": {"$in": ENDED_STATES}}, choice]}
    sizes: dict[str, dict[int, int]] = {}
    for row in db.images.find(images, {"batch_id": 1, "index": 1, "file_size": 1}, hint=hint):
        sizes.setdefault(row["batch_id"], {})[row["index"]] = row["file_size"]
    return {batch_id: _Chosen(generations[batch_id], list(of_batch), sum(of_batch.values())) for batch_id, of_batch in sizes.items()}


def _mark(db: Db, chosen: Mapping[str, _Chosen], options: Options, stores: AllowedStores) -> list[str]:
    """Open batches again, and return the ids of those that were opened."""
    token = new_id()
    updates = []
    for batch_id, images in chosen.items():
        guard = whole_batches.query(batch_id, stores) | {"generation": images.generation, "reprocessing": None, "cancelling": None}
        mark = {"generation": images.generation + 1, "indexes": images.indexes} | _describe(options)
        opened = _OPENED | {
            "generation": images.generation + 1,
            "reprocessing": {"$literal": mark},
            "reprocessing_token": token,
            "open_bytes": _open_bytes(images.bytes),
        }
        updates.append(UpdateOne(guard, [{"$set": opened}]))
    if not updates:
        return []
    db.batches.bulk_write(updates, ordered=False)
    failpoints.reach("13-reprocessing-marked")
    marked = db.batches.find({"_id": {"$in": list(chosen)}, "reprocessing_token": token}, {"_id": 1})
    return [row["_id"] for row in marked]


def _open_bytes(more: int) -> Document:
    """Return an expression for the bytes of the originals that an open batch still processes.

    While a new batch is processed for the first time, the field is missing, and ``bytes`` counts.
    """
    of_open = {"$cond": [{"$gt": ["$open_bytes", None]}, {"$add": ["$open_bytes", more]}, "$$REMOVE"]}
    return {"$cond": [_IS_OPEN, of_open, more]}


def _describe(options: Options) -> Document:
    augmentations = None if options.augmentations is None else list(options.augmentations)
    described = {"by": options.by, "job": options.job, "priority": options.priority, "only": options.only}
    return {"augmentations": augmentations, "detect": options.detect} | described


def _complete(db: Db, batch_ids: Several[str]) -> None:
    """Queue the images that the marks of batches name, and remove the marks."""
    query = {"_id": {"$in": list(batch_ids)}, "reprocessing.generation": {"$gt": 0}}
    marks = {row["_id"]: row["reprocessing"] for row in majority(db, "batches").find(query, {"reprocessing": 1})}
    if not marks:
        return
    chosen = [image_id(batch_id, index) for batch_id, mark in marks.items() for index in mark["indexes"]]
    db.images.bulk_write([_queue(batch_id, mark) for batch_id, mark in marks.items()], ordered=False)
    failpoints.reach("13-reprocessing-queued")
    queued = db.images.find({"_id": {"$in": chosen}, "status": ImageState.QUEUED.value}, turns.FIELDS)
    turns.touch(db, map(turns.turn_of, queued))
    sums.mark_due(db, marks)
    removals = [
        UpdateOne({"_id": batch_id, "reprocessing.generation": mark["generation"]}, {"$unset": {"reprocessing": ""}})
        for batch_id, mark in marks.items()
    ]
    db.batches.bulk_write(removals, ordered=False)
    failpoints.reach("13-reprocessing-unmarked")


def _queue(batch_id: str, mark: Document) -> UpdateMany:
    """Return the update that queues the images of a mark. An image that was queued by it before is not queued again."""
    generation = mark["generation"]
    images = {
        "_id": {"$in": [image_id(batch_id, index) for index in mark["indexes"]]},
        "status": {"$in": ENDED_STATES},
        "work.generation": {"$lt": generation},
    }
    fields: Document = _FIRST | {"work.generation": generation}
    chosen = {name: mark[name] for name in ("augmentations", "detect") if mark[name] is not None}
    for name, value in chosen.items():
        fields[f"work.{name}"] = {"$literal": value}
    wanted = chosen | {name: mark[name] for name in ("only", "priority") if mark[name] is not None}
    fields |= timelines.append_request("reprocess", mark["by"], generation=generation, options=wanted, job=mark["job"])
    if mark["priority"] is not None:
        fields["work.priority"] = "low" if mark["priority"] == "low" else _AT_LEAST_NORMAL
    return UpdateMany(images, [{"$set": fields}, {"$unset": list(_REMOVED)}], hint="_id_")


def _stale(options: Options, weights_sha256: str | None) -> Document:
    conditions: list[Document] = [{"shown.version": {"$ne": shown_results.PROCESSING_VERSION}}]
    if options.detect is False:
        conditions.append({"model": {"$ne": None}})
    else:
        detects = {"model": {"$ne": None}} if options.detect is None else {}
        conditions.append({"$and": [detects, {"model.weights_sha256": {"$ne": weights_sha256}}]})
    if options.augmentations is not None:
        is_equal = {"$setEquals": ["$augmentations.name", list(options.augmentations)]}
        conditions.append({"$expr": {"$not": is_equal}})
    return {"status": ImageState.DONE.value, "$or": conditions}
