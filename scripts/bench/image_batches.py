"""Accept images as a batch without the web front, for the benchmarks of what follows."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from shared.ids import new_batch_id
from shared.ledger import commits, turns
from shared.ledger.turns import Turn
from shared.priorities import NORMAL
from shared.storage.mongo import Db

STORE: Final = "bench"


def commit_images(db: Db, images: Sequence[bytes], *, augmentations: tuple[str, ...], detect: bool) -> str:
    """Commit a batch of JPEGs of one store, and return its id. No bytes are written, and the store gets no turn."""
    batch_id, offset = new_batch_id(), 0
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    new: list[commits.NewImage] = []
    for index, data in enumerate(images):
        digest = hashlib.sha256(data).hexdigest()
        new.append(commits.NewImage(index, "jpg", "image/jpeg", len(data), digest, offset, now, STORE, "cam-1"))
        offset += len(data)
    commits.commit_batch(db, commits.NewBatch(batch_id, new, augmentations, detect=detect, created_at=now))
    return batch_id


def touch_store(db: Db) -> None:
    """Give the store of the batches its turn."""
    turns.touch(db, [Turn(None, NORMAL, STORE)])
