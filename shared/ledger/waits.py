"""How long the work that waits for workers has not been taken up."""

from dataclasses import dataclass
from typing import Final

from shared.states import ImageState
from shared.storage.mongo import Db, deadline

_DEADLINE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Wait:
    """The batch of the oldest queued image, and for how many seconds no worker has taken up images of the store of that image."""

    batch_id: str
    seconds: float


def find_wait(db: Db) -> Wait | None:
    """Return the wait of the oldest queued image; None if no image is queued.

    It lasts since the image was accepted or, if that was later, since the store was last served (``store_rotation``). So the
    workers end it when they take up images of the store again, however many are queued. An image that a worker holds or is to
    try again later does not prolong it. The call reads one entry of an index and two documents.

    :raises StoreAway: also when the read takes longer than 30 seconds.
    """
    begins = {"$max": ["$created_at", {"$max": "$turns.served_at"}]}
    with deadline(_DEADLINE_S):
        found = db.images.aggregate(
            [
                {"$match": {"status": ImageState.QUEUED.value}},
                {"$sort": {"batch_id": 1}},
                {"$limit": 1},
                {"$lookup": {"from": "turns", "localField": "store_name", "foreignField": "_id", "as": "turns"}},
                {"$project": {"batch_id": 1, "waited_ms": {"$subtract": ["$$NOW", begins]}}},
            ],
            hint="rare_states",
        )
        oldest = next(iter(found), None)
    return None if oldest is None else Wait(oldest["batch_id"], max(0.0, oldest["waited_ms"] / 1000))
