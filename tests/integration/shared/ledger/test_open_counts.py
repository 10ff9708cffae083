"""The counts of open batches equal a scan of their documents."""

import random

from shared.ledger import claims, results
from shared.ledger.open_counts import count_open
from shared.ledger.results import Result
from shared.storage.mongo import Db
from tests.support.ledger import commit_new_batch


def scan(db: Db, batch_ids: list[str]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {batch_id: {} for batch_id in batch_ids}
    for image in db.images.find({"batch_id": {"$in": batch_ids}}):
        states = counts[image["batch_id"]]
        states[image["status"]] = states.get(image["status"], 0) + 1
    return counts


def without_zeros(counts: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {batch_id: {state: n for state, n in states.items() if n} for batch_id, states in counts.items()}


def test_the_counts_equal_a_scan_of_the_documents(db: Db) -> None:
    source = random.Random(5)
    batch_ids = [commit_new_batch(db, images) for images in (1, 7, 20, 20)]
    claim = claims.claim(db, "w", 32, 60)
    failed = ("corrupt", "x")
    outcomes = [Result(*lease, {"width": 1}, source.choice([None, failed])) for lease in claim.leases[:24]]
    results.finish(db, "w", outcomes)
    db.images.update_one({"batch_id": batch_ids[3], "status": "queued"}, {"$set": {"status": "cancelled"}})
    db.images.delete_one({"batch_id": batch_ids[1]})
    expected = scan(db, batch_ids)
    assert {state for states in expected.values() for state in states} == {
        "queued",
        "processing",
        "done",
        "failed",
        "cancelled",
    }
    assert without_zeros(count_open(db, batch_ids, 10_000)) == expected
    assert without_zeros(count_open(db, batch_ids[:2], 10_000)) == {
        batch_id: expected[batch_id] for batch_id in batch_ids[:2]
    }
    assert count_open(db, [], 10_000) == {}
