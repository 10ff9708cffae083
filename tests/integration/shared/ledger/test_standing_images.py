"""Whatever is uploaded, processed, moved and deleted, in any order and at the same time: batches, ledger and lists stay true."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pymongo.client_session import ClientSession

from shared.catalog import image_deletion, image_metadata
from shared.errors import NotFound, StoreAway
from shared.ledger import audit, claims, closing, deletion, page_index, results, segments, sums, tag_counts
from shared.ledger.batch_images import VISIBLE
from shared.ledger.results import Result
from shared.states import CLOSED, ImageState, batch_state
from shared.storage.mongo import Db, run_transaction
from tests.support.ledger import commit_new_batch, utc_now, validate_documents

STORES = ("north", "south", "west", "east")
TAGS = ("a", "b", "c")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make segments, groups, chunks and transactions so small that few batches fill them."""
    monkeypatch.setattr(segments, "SEGMENT", 3)
    monkeypatch.setattr(segments, "GROUP", 2)
    monkeypatch.setattr(page_index, "_CHUNK", 3)
    monkeypatch.setattr(tag_counts, "_MAX_PAIRS", 3)  # so the deletions of some batches leave tags to the sweep


class Service:
    """Does what clients, workers and the sweep do, each time with what a random generator chooses."""

    def __init__(self, db: Db, seed: int) -> None:
        self._db, self._random = db, random.Random(seed)

    def upload(self) -> None:
        batch_id = commit_new_batch(self._db, store=[self._random.choice(STORES) for _ in range(self._random.randint(1, 4))])
        image_id = f"{batch_id}0000"
        tags = self._random.sample(TAGS, self._random.randint(0, 2))
        applied = [{"id": tag, "by": None, "at": utc_now()} for tag in tags]

        def tag(session: ClientSession) -> None:
            standing = {"_id": image_id, "status": VISIBLE}
            image = self._db.images.find_one_and_update(standing, {"$set": {"tags": applied}}, session=session)
            if image is not None:
                tag_counts.change(self._db, session, tag_counts.deltas_of([image | {"tags": applied}], 1))

        run_transaction(self._db, tag, 60)

    def process(self) -> None:
        claim = claims.claim(self._db, "w", self._random.randint(1, 6), 60)
        found = [
            Result(lease.id, lease.fence, {"width": 1}, ("corrupt", "Broken.") if self._random.random() < 0.3 else None)
            for lease in claim.leases
        ]
        if self._random.random() < 0.2:
            claims.release(self._db, "w", claim.leases, "test", delay=False)
        elif found:
            results.finish(self._db, "w", found)
            if self._random.random() < 0.7:
                closing.close_batches(self._db, {lease.id[:32] for lease in claim.leases})

    def delete_image(self) -> None:
        if image_id := self._choose():
            deleted = image_deletion.begin_delete(self._db, image_id, None)
            if self._random.random() < 0.7:
                closing.close_batches(self._db, [deleted.batch_id])
            if self._random.random() < 0.5 and not deleted.with_batch:
                image_deletion.finish_delete(self._db, image_id)

    def move_image(self) -> None:
        if image_id := self._choose():
            image_metadata.correct(self._db, image_id, None, {"store_name": self._random.choice(STORES)})

    def delete_batch(self) -> None:
        if self._random.random() < 0.3 and (image_id := self._choose()):
            deletion.begin_delete(self._db, image_id[:32], None)
            if self._random.random() < 0.5:
                deletion.finish_delete(self._db, image_id[:32])

    def index_pages(self) -> None:
        page_index.maintain(self._db, now=utc_now() + timedelta(seconds=61), max_chunks=self._random.randint(1, 3))

    def sweep(self) -> None:
        closing.close_batches(self._db, closing.find_closable(self._db))

    def step(self) -> None:
        steps: dict[str, int] = {"upload": 4, "process": 4, "delete_image": 4, "move_image": 4, "delete_batch": 2, "index_pages": 2, "sweep": 1}
        call: Callable[[], None] = getattr(self, self._random.choices(list(steps), list(steps.values()))[0])
        call()

    def _choose(self) -> str | None:
        ids = [row["_id"] for row in self._db.images.find({"status": VISIBLE}, {"_id": 1}).sort("_id", -1).limit(20)]
        return self._random.choice(ids) if ids else None


def assert_true(db: Db) -> None:
    """Compare everything that is kept about batches and images with the images themselves."""
    assert sums.count_missing(audit.balance(db)) == 0
    for line in db.ledger.find({}):
        standing = db.images.count_documents({"batch_id": line["_id"], "status": VISIBLE})
        assert line["received"] == line["deleted"] + standing
        assert (db.batches.find_one({"_id": line["_id"], "listed": True}) is not None) == (standing > 0)
    in_stores: Counter[str] = Counter()
    for batch in db.batches.find({"listed": True}):
        images = list(db.images.find({"batch_id": batch["_id"], "status": VISIBLE}))
        states = Counter(image["status"] for image in images)
        assert (batch["total"], batch["bytes"]) == (len(images), sum(image["file_size"] for image in images))
        assert batch["stores"] == sorted({image["store_name"] for image in images})
        in_stores.update(batch["stores"])
        assert ("open" in batch) == (batch["counts"] is None)
        if "open" not in batch:
            assert batch["counts"] == {state.value: states[state] for state in ImageState}
            assert batch["status"] == batch_state(batch["counts"], batch["total"])
            assert batch["status"] in CLOSED
    tagged = tag_counts.deltas_of(db.images.find({}), 1)
    assert {(row["tag"], row["store"]): row["n"] for row in db.tag_counts.find({"n": {"$ne": 0}})} == dict(tagged)
    for store in STORES:
        assert page_index.find_position(db, store, 0, 60_000).total == in_stores[store]
    assert page_index.recount(db, 1000) == 0
    validate_documents(db)


def correct_page_index(db: Db) -> None:
    """Add all batches to the page index, and correct the counts of those that were deleted or moved while they were added."""
    while page_index.maintain(db, now=utc_now() + timedelta(seconds=61)):
        pass
    while page_index.recount(db, 1000):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_everything_stays_true_in_any_order(db: Db, seed: int) -> None:
    service = Service(db, seed)
    for number in range(120):
        service.step()
        if number % 10 == 9:
            assert_true(db)
    service.sweep()
    assert db.batches.count_documents({"open": True}) == len(db.images.distinct("batch_id", {"status": {"$in": ["queued", "processing"]}}))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_everything_stays_true_at_the_same_time(db: Db, seed: int) -> None:
    for _ in range(12):
        Service(db, seed).upload()
    errors: list[BaseException] = []

    def work(number: int) -> None:
        service = Service(db, 100 * seed + number)
        for _ in range(25):
            try:
                service.step()
            except (NotFound, StoreAway):  # another thread was faster, or there were too many conflicts
                continue
            except BaseException as error:  # noqa: BLE001 -- the main thread reports it
                errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    correct_page_index(db)
    assert_true(db)


def test_a_batch_that_is_new_to_a_store_is_counted_in_its_place(db: Db) -> None:
    ids = [commit_new_batch(db, 1, "north" if number % 2 else "south") for number in range(12)]
    while page_index.maintain(db, now=utc_now() + timedelta(seconds=61)):
        pass
    for batch_id in (ids[11], ids[0], ids[6], ids[10]):  # newer than all in the other store, oldest, and in between
        image_metadata.correct(db, f"{batch_id}0000", None, {"store_name": "west"})
        assert_true(db)
    later = [commit_new_batch(db, 1, "west") for _ in range(5)]
    image_metadata.correct(db, f"{later[2]}0000", None, {"store_name": "north"})
    while page_index.maintain(db, now=utc_now() + timedelta(seconds=61)):
        pass
    assert_true(db)


@pytest.mark.parametrize("is_deletion", [False, True], ids=["move", "deletion"])
def test_what_changes_while_a_batch_is_added_to_the_page_index_is_corrected_by_a_recount(
    db: Db, monkeypatch: pytest.MonkeyPatch, *, is_deletion: bool
) -> None:
    ids = [commit_new_batch(db, 1, "north" if number % 2 else "south") for number in range(12)]
    append = segments.append

    def change_first(*arguments: Any) -> bool:
        monkeypatch.setattr(segments, "append", append)
        if is_deletion:
            deletion.begin_delete(db, ids[1], None)
        else:
            image_metadata.correct(db, f"{ids[1]}0000", None, {"store_name": "west"})
        return append(*arguments)

    monkeypatch.setattr(segments, "append", change_first)
    correct_page_index(db)
    assert_true(db)
