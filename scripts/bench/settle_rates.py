"""Measure how many accepted bytes a second can be settled, compared with hashing all of them once more.

Hashing everything is what one process for a whole installation did before, in an eighth of its time.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scripts.bench import image_batches
from scripts.bench.report import Row, Target, compare
from scripts.bench.servers import Servers, cpu_seconds
from scripts.bench.timing import interleave, median
from shared.bootstrap import Stores, open_stores
from shared.ids import image_id
from shared.ledger import claims, closing, results
from shared.ledger.results import Result
from shared.storage.blob_keys import original_key, spool_key
from worker.spools.settlement import settle

_SETTLING: Final = "settling"
_HASHING: Final = "hashing everything"
_AT_LEAST_MB_S: Final = 200
_FORMER_SHARE: Final = 1 / 8
_BATCHES: Final = 4
_OWNER: Final = "bench"


@dataclass(frozen=True, slots=True)
class Sample:
    """The cost of settling one group of batches in seconds: wall time, and CPU time of this process and of MongoDB."""

    wall: float
    cpu: float


def measure(servers: Servers, images: list[bytes], *, rounds: int) -> list[Row]:
    """Settle large batches and batches of one image, with and without the record that their originals are stored.

    Before each sample, the originals are removed from the page cache, because a worker does that when it stores them.
    """
    stores = open_stores(servers.settings, app="bench")
    stores.identity.check()
    rows: list[Row] = []
    for who, batches in (
        (f"batches of {len(images)}", [images] * _BATCHES),
        ("batches of one", [[data] for data in images]),
    ):
        ids = [_create_batch(stores, batch) for batch in batches]
        megabytes = sum(len(data) for batch in batches for data in batch) / 1e6
        subjects = {
            name: _settling(stores, servers.mongod.pid, dict(zip(ids, batches, strict=True)), stored=name == _SETTLING)
            for name in (_SETTLING, _HASHING)
        }
        target = Target(at_least=_AT_LEAST_MB_S) if len(ids) == _BATCHES else None
        rows += _rows(who, megabytes, interleave(subjects, rounds), target)
    stores.close()
    return rows


def _rows(who: str, megabytes: float, samples: dict[str, list[Sample]], target: Target | None) -> list[Row]:
    wall = {name: megabytes / median(sample.wall for sample in taken) for name, taken in samples.items()}
    # CPU clocks tick at 10 ms, so only the sum over all rounds is accurate.
    cpu = {name: megabytes * len(taken) / sum(sample.cpu for sample in taken) for name, taken in samples.items()}
    return [
        compare(f"{who}, by wall: of hashing everything", wall[_SETTLING], "MB/s", wall[_HASHING]),
        compare(f"{who}, by CPU with MongoDB's: of hashing everything", cpu[_SETTLING], "MB/CPU s", cpu[_HASHING]),
        Row(f"{who}: hashing everything in an eighth of the time", wall[_HASHING] * _FORMER_SHARE, "MB/s"),
        Row(f"{who}: settled by one worker", wall[_SETTLING], "MB/s", target=target),
    ]


def _create_batch(stores: Stores, images: list[bytes]) -> str:
    """Create a closed batch whose originals are stored, and return its id."""
    db = stores.db
    batch_id = image_batches.commit_images(db, images, augmentations=(), detect=False)
    image_batches.touch_store(db)
    leases = claims.claim(db, _OWNER, len(images), 60.0).leases
    results.finish(db, _OWNER, [Result(lease.id, lease.fence, {"width": 1280, "height": 960}, stored=True) for lease in leases])
    if closing.close_batches(db, [batch_id]) != [batch_id]:
        raise RuntimeError("The batch was not closed.")
    stores.blobs.write_many([(_key(batch_id, index), [data]) for index, data in enumerate(images)])
    return batch_id


def _settling(stores: Stores, mongod_pid: int, batches: dict[str, list[bytes]], *, stored: bool) -> Callable[[], Sample]:
    ids = list(batches)

    def run() -> Sample:
        marked = {"work.stored": True}
        stores.db.images.update_many({"batch_id": {"$in": ids}}, {"$set": marked} if stored else {"$unset": marked})
        stores.db.batches.update_many({"_id": {"$in": ids}}, {"$set": {"spooled": True, "unswept": True}})
        for batch_id, images in batches.items():
            stores.blobs.write(spool_key(batch_id), images)
            for index in range(len(images)):
                _drop_from_cache(stores, _key(batch_id, index))
        mongod_before, cpu_before, wall_before = cpu_seconds(mongod_pid), time.process_time(), time.perf_counter()
        settled = settle(stores, ids)
        wall, cpu = time.perf_counter() - wall_before, time.process_time() - cpu_before
        if settled != set(ids):
            raise RuntimeError("Not every batch was settled.")
        return Sample(wall, cpu + cpu_seconds(mongod_pid) - mongod_before)

    return run


def _drop_from_cache(stores: Stores, key: str) -> None:
    file, _ = stores.blobs.open(key)
    with file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _key(batch_id: str, index: int) -> str:
    return original_key(image_id(batch_id, index), "jpg")
