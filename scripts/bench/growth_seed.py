"""Fill several databases on one server, each with another number of processed images of 20,000 stores.

Processes build and insert the documents in parallel, with the functions of ``seed_database``.
"""

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from typing import Final

from pymongo.write_concern import WriteConcern

from scripts.bench import seed_database
from shared import settings
from shared.ledger import turns
from shared.ledger.turns import Turn
from shared.priorities import NORMAL
from shared.storage.mongo import Db, Document, connect

STORES: Final = 20_000
_STORES_OF_FIRST: Final = 8
"""Number of stores in each of the first batches, so that a small database has all stores, too."""
_STORE_SHARE: Final = 100
"""The measured store has images in one of so many batches."""
_BATCHES_PER_TASK: Final = 640
_BATCHES_PER_INSERT: Final = 64
_TOUCHED_AT_ONCE: Final = 1000
_LOG_EVERY_S: Final = 15.0


def store_name(number: int) -> str:
    """Return the name of a store. Store 0 has a constant share of all batches; listing its batches is measured."""
    return f"store-{number:05}"


def seed(mongo: settings.Mongo, batches: int, log: Callable[[str], None]) -> list[str]:
    """Fill an empty database, then create the indexes and count the batches as the sweep does.

    :param log: function that is called with each line of progress.
    :returns: ids of the batches, with the oldest first.
    """
    start = datetime.now(UTC).replace(tzinfo=None, microsecond=0) - seed_database.BATCH_INTERVAL * (batches + 30)
    ids: list[str] = []
    context = multiprocessing.get_context("spawn")  # a client of MongoDB does not survive a fork
    with ProcessPoolExecutor(min(8, os.cpu_count() or 1), context) as processes:
        tasks = [
            processes.submit(_seed_range, mongo, start, first, min(first + _BATCHES_PER_TASK, batches))
            for first in range(0, batches, _BATCHES_PER_TASK)
        ]
        started = logged = time.monotonic()
        for task in as_completed(tasks):
            ids += task.result()
            if time.monotonic() - logged > _LOG_EVERY_S:
                logged = time.monotonic()
                left_s = (logged - started) * (batches - len(ids)) / len(ids)
                images = len(ids) * seed_database.PER_BATCH
                log(f"seeding: {images:,} of {batches * seed_database.PER_BATCH:,} images, {left_s / 60:.0f} min left")
    db = connect(mongo, app="bench")
    _add_turns(db)
    seed_database.prepare(db, log)
    db.client.close()
    return sorted(ids)


def _seed_range(mongo: settings.Mongo, start: datetime, first: int, end: int) -> list[str]:
    """Insert the batches with the numbers from ``first`` to ``end - 1``, and return their ids."""
    rng = random.Random(first)
    fast = WriteConcern(w=1, j=False)  # this data does not need to be durable
    db = connect(mongo, app="bench")
    ids: list[str] = []
    for begin in range(first, end, _BATCHES_PER_INSERT):
        documents: dict[str, list[Document]] = {}
        for number in range(begin, min(begin + _BATCHES_PER_INSERT, end)):
            created_at = start + seed_database.BATCH_INTERVAL * number
            seed_database.add_batch(documents, rng, created_at, _stores_of(number))
        for name, added in documents.items():
            db.get_collection(name, write_concern=fast).insert_many(added, ordered=False)
        ids += [header["_id"] for header in documents["batches"]]
    db.client.close()
    return ids


def _stores_of(number: int) -> list[str]:
    """Return the stores of a batch, by its number."""
    first = number * _STORES_OF_FIRST
    stores = list(range(first, first + _STORES_OF_FIRST)) if first < STORES else [number * 7919 % STORES]
    if number % _STORE_SHARE == 0:
        stores[0] = 0
    return [store_name(store) for store in stores]


def _add_turns(db: Db) -> None:
    """Add the turns of all stores, which stay in the database when a store has no queued images."""
    for begin in range(0, STORES, _TOUCHED_AT_ONCE):
        turns.touch(db, (Turn(None, NORMAL, store_name(store)) for store in range(begin, begin + _TOUCHED_AT_ONCE)))
    for collection in (db.account_turns, db.store_turns):
        collection.update_many({}, {"$set": {"pending": False}})
