"""Helpers for the tests of the ledger: create batches without an upload, and process them without a worker."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.ids import new_batch_id
from shared.ledger import claims, closing, commits, results, turns
from shared.ledger.claims import Claim
from shared.ledger.results import Result
from shared.ledger.shown_results import options_of, shown_fence
from shared.queue.leases import Lease
from shared.storage.mongo import Db
from shared.storage.schema import DOCUMENTS


def utc_now() -> datetime:
    """Return the current time as MongoDB stores it, which is naive UTC in whole milliseconds."""
    at = datetime.now(UTC).replace(tzinfo=None)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def new_batch(images: int = 4, store: str | Sequence[str] = "north", **fields: object) -> commits.NewBatch:
    """Return a batch that is not committed yet.

    :param images: the number of images if all of them belong to one store.
    :param store: the store of all images, or a sequence with one store for each image.
    :param fields: field values for every image. Only ``id``, ``account`` and ``priority`` are those of the batch.
    """
    at = utc_now()
    of_batch: dict[str, Any] = {name: fields.pop(name) for name in ("account", "priority") if name in fields}
    batch_id = str(fields.pop("id", None) or new_batch_id())
    stores = [store] * images if isinstance(store, str) else list(store)
    common: dict[str, Any] = {
        "ext": "jpg",
        "content_type": "image/jpeg",
        "file_size": 1000,
        "sha256": "0" * 64,
        "timestamp": at,
        "camera_id": "cam",
        **fields,
    }
    new_images = [commits.NewImage(index=n, offset=n * 1000, store_name=name, **common) for n, name in enumerate(stores)]
    return commits.NewBatch(batch_id, new_images, ("rotate",), detect=True, created_at=at, **of_batch)


def commit_new_batch(db: Db, images: int = 4, store: str | Sequence[str] = "north", **fields: object) -> str:
    """Commit a new batch, and return its id. The parameters are those of ``new_batch``."""
    committed = new_batch(images, store, **fields)
    commits.commit_batch(db, committed)
    turns.touch(db, committed.turns())
    return committed.id


def batch_id_at(moment: datetime, number: int) -> str:
    """Return a batch id for a given moment. ``number`` distinguishes ids for the same moment."""
    millis = int((moment - datetime(1970, 1, 1)).total_seconds() * 1000)
    return f"{millis:012x}7{number:019x}"


def claimed_fences(claim: Claim) -> list[Lease]:
    """Return the id and the fence of each image in a claim."""
    return claim.leases


def successful_results(claim: Claim, **fields: object) -> list[Result]:
    """Return a successful result for every image in a claim. ``fields`` are added to each result."""
    return [
        Result(image["_id"], image["work"]["fence"], {"width": 1, "height": 1, **fields}, is_again=shown_fence(image) is not None)
        for image in claim.images
    ]


def failed_results(claim: Claim, code: str = "corrupt") -> list[Result]:
    """Return a failure for every image in a claim."""
    fields = ({"model": None} if shown_fence(image) is None else options_of(image) for image in claim.images)
    return [replace(result, fields=values, error=(code, "Broken.")) for result, values in zip(successful_results(claim), fields, strict=True)]


def process_all(db: Db, owner: str = "worker", size: int = 32) -> int:
    """Claim and finish images until none is claimable, and return the number of claims."""
    claim_count = 0
    while (claim := claims.claim(db, owner, size, 60)).images:
        claim_count += 1
        results.finish(db, owner, successful_results(claim))
        closing.close_batches(db, {image["batch_id"] for image in claim.images})
    return claim_count


def expire_leases(db: Db, names: Sequence[str]) -> None:
    """Change the leases of images so that they expired a minute ago."""
    db.images.update_many({"_id": {"$in": list(names)}}, {"$set": {"work.lease_until": utc_now() - timedelta(minutes=1)}})


def finish_earlier(db: Db, seconds: float) -> None:
    """Change all closed batches so that they were closed this number of seconds earlier, and end the sweep's claims."""
    earlier = {"$subtract": ["$finished_at", int(seconds * 1000)]}
    db.batches.update_many({"finished_at": {"$ne": None}}, [{"$set": {"finished_at": earlier}}, {"$unset": "sweep_until"}])


def validate_documents(db: Db) -> int:
    """Validate every stored document against the schema, and return the number of documents."""
    count = 0
    for kind in DOCUMENTS:
        for raw in db[kind._meta["collection"]].find():
            kind._from_son(raw).validate()
            count += 1
    return count
