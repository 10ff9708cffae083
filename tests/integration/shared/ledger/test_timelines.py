"""What the writes of the ledger record about the attempts and the requests of an image."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.ledger import cancellation, claims, reprocessing, results, timelines, turns
from shared.ledger.reprocessing import Options
from shared.ledger.results import Result
from shared.ledger.timelines import MAX_ATTEMPTS, MAX_REQUESTS, Measured
from shared.queue.leases import Lease
from shared.storage.mongo import Db
from tests.integration.shared.ledger.claiming import set_not_before
from tests.support.ledger import (
    commit_new_batch,
    expire_leases,
    failed_results,
    process_all,
    utc_now,
    validate_documents,
)


def only_image(db: Db) -> Any:
    (image,) = db.images.find()
    return image


def claim_one(db: Db, owner: str) -> Lease:
    """Claim the only image, whatever its delay is."""
    set_not_before(db, datetime(1970, 1, 1))
    turns.repair(db)
    (lease,) = claims.claim(db, owner, 1, 60).leases
    return lease


def lose(db: Db, owner: str) -> None:
    expire_leases(db, [claim_one(db, owner).id])
    assert claims.expire_leases(db) == 1


def test_a_new_image_has_no_history(db: Db) -> None:
    commit_new_batch(db, 1)
    image = only_image(db)
    assert image.keys().isdisjoint({"history", "corrections"})
    assert "claimed_at" not in image["work"]


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("error", [None, ("corrupt", "$broken" + "x" * 300)])
def test_a_result_records_its_attempt(db: Db, error: tuple[str, str] | None, *, is_first: bool) -> None:
    commit_new_batch(db, 1)
    lease = claim_one(db, "worker")
    claimed_at = only_image(db)["work"]["claimed_at"]
    measured = Measured(claimed_at, claimed_at + timedelta(milliseconds=7), {"write_ms": 1.26, "load_ms": 2.0}, is_first)
    assert results.finish(db, "worker", [Result(*lease, {"width": 1}, error, measured=measured)]) == {lease.id}
    image = only_image(db)
    outcome: dict[str, Any] = {"outcome": "done", "code": None}
    if error is not None:
        outcome = {"outcome": "failed", "code": "corrupt", "detail": error[1][:250]}
    assert image["history"] == {
        "attempts": [
            {"worker": "worker", "fence": 1, "begun": claimed_at, "ended": measured.ended, "steps": {"load_ms": 2.0, "write_ms": 1.3}} | outcome
        ]
    }
    assert image["work"]["claimed_at"] is None
    validate_documents(db)


def test_a_release_and_a_lost_lease_record_their_attempts_by_the_clock_of_the_database(db: Db) -> None:
    commit_new_batch(db, 1)
    lease = claim_one(db, "w1")
    first = only_image(db)["work"]["claimed_at"]
    claims.release(db, "w1", [lease], "$disk_full")
    released = only_image(db)
    lose(db, "w2")
    image = only_image(db)
    assert [(entry["worker"], entry["fence"], entry["outcome"], entry["code"]) for entry in image["history"]["attempts"]] == [
        ("w1", 1, "released", "$disk_full"), ("w2", 2, "expired", None),
    ]  # fmt: skip
    assert [entry["ended"] for entry in image["history"]["attempts"]] == [released["updated_at"], image["updated_at"]]
    begun = [entry["begun"] for entry in image["history"]["attempts"]]
    assert begun[0] == first
    assert first <= released["updated_at"] <= begun[1] <= image["updated_at"]
    assert image["work"]["claimed_at"] is None
    validate_documents(db)


def test_a_worker_that_lost_its_lease_records_nothing(db: Db) -> None:
    commit_new_batch(db, 1)
    late = claim_one(db, "w1")
    expire_leases(db, [late.id])
    claims.expire_leases(db)
    before = only_image(db)
    assert results.finish(db, "w1", [Result(*late, {"width": 1})]) == set()
    assert claims.release(db, "w1", [late], "stopped") == 0
    assert only_image(db) == before


def test_a_claim_that_the_version_before_made_has_no_beginning(db: Db) -> None:
    commit_new_batch(db, 1)
    lease = claim_one(db, "w")
    db.images.update_one({}, {"$unset": {"work.claimed_at": ""}})
    claims.release(db, "w", [lease], "stopped")
    (attempt,) = only_image(db)["history"]["attempts"]
    assert "begun" not in attempt
    validate_documents(db)


def test_an_image_whose_workers_die_again_and_again_keeps_the_last_attempts(db: Db) -> None:
    commit_new_batch(db, 1)
    sizes = []
    for number in range(30):
        lose(db, f"worker-{number:03}")
        sizes.append(next(db.images.aggregate([{"$project": {"n": {"$bsonSize": "$$ROOT"}}}]))["n"])
    image = only_image(db)
    attempts = image["history"]["attempts"]
    assert [entry["fence"] for entry in attempts] == list(range(31 - MAX_ATTEMPTS, 31))
    assert image["work"]["fence"] - len(attempts) == 10  # so it is known how many are missing
    assert len(set(sizes[MAX_ATTEMPTS:])) == 1
    lease = claim_one(db, "last")
    results.finish(db, "last", [Result(*lease, {"width": 1})])
    attempts = only_image(db)["history"]["attempts"]
    assert (len(attempts), attempts[0]["fence"], attempts[-1]["outcome"]) == (MAX_ATTEMPTS, 12, "done")


def test_requests_are_recorded_beside_attempts_and_counted(db: Db) -> None:
    commit_new_batch(db, 1)
    before = utc_now()
    for generation in range(1, 13):
        again = timelines.append_request("reprocess", "$user", generation=generation, options={"augmentations": ["$x"], "detect": True}, job=None)
        db.images.update_many({}, [{"$set": again}])
    db.images.update_many({}, [{"$set": timelines.append_request("cancel", None)}])
    history = only_image(db)["history"]
    assert (len(history["requests"]), history["requested"]) == (MAX_REQUESTS, 13)
    last, cancelled = history["requests"][-2:]
    assert last == {
        "kind": "reprocess", "at": last["at"], "by": "$user", "generation": 12, "options": {"augmentations": ["$x"], "detect": True}, "job": None,
    }  # fmt: skip
    assert cancelled == {"kind": "cancel", "at": cancelled["at"], "by": None}
    assert before - timedelta(seconds=5) <= last["at"] <= cancelled["at"]
    lose(db, "w")
    assert only_image(db)["history"] | {"attempts": []} == history | {"attempts": []}
    validate_documents(db)


def test_reprocessing_that_fails_and_reprocessing_that_is_cancelled_are_recorded_while_the_image_stays_done(db: Db) -> None:
    batch_id = commit_new_batch(db, 1)
    process_all(db)
    reprocessing.reprocess(db, batch_id, {}, Options(("$flip",), detect=False, by="$ann", job="$job", priority="low", only="$all"), None)
    claim = claims.claim(db, "w", 1, 60)
    results.finish(db, "w", failed_results(claim))
    assert only_image(db)["status"] == "done"
    reprocessing.reprocess(db, batch_id, {}, Options(), None)
    cancellation.cancel(db, batch_id, None, by="$bob")
    image = only_image(db)
    assert (image["status"], image["error"]) == ("done", None)
    assert [(entry["fence"], entry["outcome"], entry["code"]) for entry in image["history"]["attempts"]] == [(1, "done", None), (2, "failed", "corrupt")]
    requests = image["history"]["requests"]
    assert [{name: value for name, value in entry.items() if name != "at"} for entry in requests] == [
        {"kind": "reprocess", "by": "$ann", "generation": 1, "options": {"augmentations": ["$flip"], "detect": False, "only": "$all", "priority": "low"}, "job": "$job"},
        {"kind": "reprocess", "by": None, "generation": 2, "options": {}, "job": None},
        {"kind": "cancel", "by": "$bob"},
    ]
    assert image["history"]["requested"] == 3
    assert "cancelled_by" not in (db.batches.find_one() or {})
    validate_documents(db)


@pytest.mark.parametrize("by", ["ann", None])
def test_a_cancellation_that_the_sweep_completes_names_who_has_requested_it(db: Db, by: str | None) -> None:
    batch_id = commit_new_batch(db, 1)
    lease = claim_one(db, "w")
    cancellation.cancel(db, batch_id, None, by=by)
    claims.release(db, "w", [lease], "disk_full")
    validate_documents(db)
    assert cancellation.end_queued(db, cancellation.find_cancelling(db, "", 10)) == 1
    (request,) = only_image(db)["history"]["requests"]
    assert (request["kind"], request["by"]) == ("cancel", by)


def test_a_step_that_is_repeated_records_a_request_once(db: Db) -> None:
    batch_id = commit_new_batch(db, 1)
    process_all(db)
    reprocessing.reprocess(db, batch_id, {}, Options(), None)
    mark = {"generation": 1, "indexes": [0], "augmentations": None, "detect": None, "by": None, "job": None, "only": None, "priority": None}
    db.batches.update_one({}, {"$set": {"reprocessing": mark}})  # as if the process had died before it removed the mark
    reprocessing.complete(db, [batch_id])
    assert only_image(db)["history"]["requested"] == 1
