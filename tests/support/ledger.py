"""What the ledger's tests share: batches that are quick to make, and the oldest way to work through them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.ids import new_batch_id
from shared.ledger import claims, commits, results, store_rotation
from shared.ledger.claims import Claim
from shared.ledger.results import Result
from shared.storage.mongo import Db
from shared.storage.schema import DOCUMENTS


def utc_now() -> datetime:
    """Give the time as MongoDB keeps it: naive UTC, whole milliseconds."""
    at = datetime.now(UTC).replace(tzinfo=None)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def new_batch(images: int = 4, store: str | Sequence[str] = "north", **fields: object) -> commits.NewBatch:
    """Make a batch; ``store`` may name one store for each image, ``fields`` go to every image (``id``: the batch's)."""
    at = utc_now()
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
    made = [commits.NewImage(index=n, offset=n * 1000, store_name=name, **common) for n, name in enumerate(stores)]
    return commits.NewBatch(batch_id, made, ("rotate",), detect=True, created_at=at)


def commit_new_batch(db: Db, images: int = 4, store: str | Sequence[str] = "north", **fields: object) -> str:
    """Commit a batch and give its id."""
    made = new_batch(images, store, **fields)
    commits.commit_batch(db, made)
    store_rotation.touch(db, {image.store_name for image in made.images})
    return made.id


def batch_id_at(moment: datetime, number: int) -> str:
    """Make a batch id of a moment in the past."""
    millis = int((moment - datetime(1970, 1, 1)).total_seconds() * 1000)
    return f"{millis:012x}7{number:019x}"


def claimed_fences(claim: Claim) -> list[tuple[str, int]]:
    """Give a claim's images and fences."""
    return [(image["_id"], image["work"]["fence"]) for image in claim.images]


def successful_results(claim: Claim, **fields: object) -> list[Result]:
    """Give a good result for every image of a claim."""
    return [Result(name, fence, {"width": 1, "height": 1, **fields}) for name, fence in claimed_fences(claim)]


def process_all(db: Db, owner: str = "worker", size: int = 32) -> int:
    """Claim and finish until nothing is claimable; count the claims."""
    number = 0
    while (claim := claims.claim(db, owner, size, 60)).images:
        number += 1
        results.finish(db, owner, successful_results(claim))
        results.close_batches(db, {image["batch_id"] for image in claim.images})
    return number


def expire_leases(db: Db, names: Sequence[str]) -> None:
    """Let the leases of images have ended a minute ago."""
    db.images.update_many({"_id": {"$in": list(names)}}, {"$set": {"work.lease_until": utc_now() - timedelta(minutes=1)}})


def validate_documents(db: Db) -> int:
    """Read every stored document through the schema; count them."""
    read = 0
    for kind in DOCUMENTS:
        for raw in db[kind._meta["collection"]].find():
            kind._from_son(raw).validate()
            read += 1
    return read
