"""The timeline of an image: when it was received, each attempt to process it, requests about it, and what people changed.

``shared.ledger.timelines`` and ``shared.catalog.corrections`` say what is recorded and how much of it is kept.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shared.accounts import principals
from shared.allowed_stores import AllowedStores
from shared.catalog import image_tags
from shared.catalog.tag_names import TagNames
from shared.states import ImageState
from shared.storage.mongo import Db, Document

_FIELDS: Final = dict.fromkeys(
    (
        "status", "store_name", "batch_id", "created_at", "created_by", "finished_at", "error", "tags", "history", "corrections",
        "work.fence", "work.owner", "work.finisher", "work.claimed_at", "work.not_before", "work.queued_at",
    ),
    1,
)  # fmt: skip

NamesOf = Callable[[Sequence[Document]], list[str]]
"""A function that returns the names of tags, which are given by their ids as in ``AppliedTag``. Deleted tags have none."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The timeline of an image. Times are naive UTC.

    ``next_attempt_at`` is the time from which a worker can begin the next attempt; None unless the image is queued. ``omitted`` is
    the number of attempts, requests and changes that are known to be missing. ``events`` are in the order of their times;
    each has ``at``, ``type``, and the members of its type.
    """

    image_id: str
    status: str
    next_attempt_at: datetime | None
    omitted: int
    events: list[dict[str, Any]]


def read(db: Db, image_id: str, stores: AllowedStores) -> Timeline:
    """Return the timeline of an image.

    :param stores: the stores of the reader. Of a move, the names of other stores are left out.
    :raises NotFound: when the image is unknown or deleted, or belongs to another store.
    :raises StoreAway: when MongoDB does not respond.
    """
    image = image_tags.read_fields(db, image_id, stores, _FIELDS)
    if image.get("created_by") is not None:
        image["created_by"] = principals.name_of(db, image["created_by"])
    names = TagNames(db)
    names.load(_tag_ids(image))
    return build(image, names.show, stores)


def build(image: Document, names_of: NamesOf, stores: AllowedStores) -> Timeline:
    """Return the timeline of a stored image.

    :param names_of: returns the names of the tags that the image has or had.
    :param stores: the stores of the reader.
    """
    attempts = _attempts(image)
    history, corrections = image.get("history") or {}, image.get("corrections") or {}
    requests, corrected = history.get("requests", []), corrections.get("entries", [])
    events = [
        {"at": image["created_at"], "type": "received", "by": image.get("created_by"), "batch_id": image["batch_id"]},
        *map(_request, requests),
        *map(_attempt, attempts),
        *(_correction(entry, names_of, stores) for entry in corrected),
        *_tagged(image, names_of),
    ]
    missing = (
        image["work"]["fence"] - len(attempts),
        history.get("requested", 0) - len(requests),
        corrections.get("count", 0) - len(corrected),
    )
    events.sort(key=lambda event: event["at"])  # events of the same time keep their order
    return Timeline(image["_id"], image["status"], _next_attempt_at(image), sum(max(0, number) for number in missing), events)


def _next_attempt_at(image: Document) -> datetime | None:
    if image["status"] != ImageState.QUEUED:
        return None
    times: list[datetime] = [image["work"]["not_before"], image["work"].get("queued_at") or image["created_at"]]
    return max(times)


def _attempts(image: Document) -> list[Document]:
    """Return the recorded attempts (``schema.timelines.Attempt``), and the running one, whose ``ended`` and ``outcome`` are None.

    If nothing was recorded, because the version before has processed the image, its result shows the last attempt.
    """
    work, recorded = image["work"], list((image.get("history") or {}).get("attempts", []))
    if image["status"] == ImageState.PROCESSING:
        running = {"fence": work["fence"], "worker": work["owner"], "begun": work.get("claimed_at")}
        # The version before does not store when a claim was made. The end of the previous attempt is the least possible time.
        least = recorded[-1]["ended"] if recorded else image["created_at"]
        return [*recorded, running | {"ended": None, "outcome": None, "least": least}]
    if not recorded and work["fence"] and image["status"] in {ImageState.DONE, ImageState.FAILED} and image["finished_at"] is not None:
        error = image["error"] or {"code": None, "detail": None}
        return [{"fence": work["fence"], "worker": work.get("finisher"), "ended": image["finished_at"], "outcome": image["status"], **error}]
    return recorded


def _attempt(entry: Document) -> dict[str, Any]:
    begun, ended = entry.get("begun"), entry["ended"]
    return {
        "at": begun or ended or entry["least"],
        "type": "attempt",
        "number": entry["fence"],
        "worker": entry["worker"],
        "begun_at": begun,
        "ended_at": ended,
        "outcome": entry["outcome"],
        "code": entry.get("code"),
        "detail": entry.get("detail"),
        "steps": entry.get("steps"),
    }


def _request(entry: Document) -> dict[str, Any]:
    event = {"at": entry["at"], "by": entry["by"]}
    if entry["kind"] == "cancel":
        return event | {"type": "cancelled"}
    options = entry.get("options") or {}
    chosen = {name: options.get(name) for name in ("only", "priority", "augmentations", "detect")}
    return event | {"type": "reprocess_requested", "generation": entry["generation"], "job_id": entry.get("job")} | chosen


def _correction(entry: Document, names_of: NamesOf, stores: AllowedStores) -> dict[str, Any]:
    event, name = {"at": entry["at"], "by": entry["by"]}, entry["field"]
    if name == "annotations":
        return event | {"type": "annotated", "boxes": entry["boxes"]}
    if name == "tags":
        return event | {"type": "untagged", "tags": names_of(_applied(entry["removed"])), "number": entry["number"]}
    values = {side: entry.get(side) for side in ("from", "to")}
    if name == "store_name" and stores is not None:
        values = {side: store if store in stores else None for side, store in values.items()}
    return event | {"type": "corrected", "field": name} | values


def _tagged(image: Document, names_of: NamesOf) -> Iterator[dict[str, Any]]:
    for applied in image["tags"]:
        for name in names_of([applied]):
            yield {"at": applied["at"], "type": "tagged", "by": applied["by"], "tag": name}


def _applied(tag_ids: Iterable[str]) -> list[Document]:
    return [{"id": tag_id} for tag_id in tag_ids]


def _tag_ids(image: Document) -> set[str]:
    """Return the ids of the tags that an image has, and of the removed ones that its corrections name."""
    entries = (image.get("corrections") or {}).get("entries", [])
    return {tag["id"] for tag in image["tags"]} | {tag_id for entry in entries for tag_id in entry.get("removed", ())}
