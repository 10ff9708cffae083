"""Which images are tried alone, and which failures of these attempts are counted."""

from datetime import timedelta
from typing import Any

from shared.ledger import claims, turns
from shared.queue.leases import Lease
from shared.states import READ_ERRORS_ALLOWED, SOLO_DEATHS_ALLOWED, SOLO_LOSSES_ALLOWED
from shared.storage.mongo import Db
from tests.integration.shared.ledger.claiming import set_not_before
from tests.support.ledger import commit_new_batch, expire_leases, utc_now, validate_documents


def test_after_a_lost_lease_each_image_is_claimed_alone(db: Db) -> None:
    commit_new_batch(db, 3)
    lost = claims.claim(db, "w1", 8, 60)
    expire_leases(db, [image["_id"] for image in lost.images])
    assert claims.expire_leases(db) == 3
    for _ in range(3):
        claim = claims.claim(db, "w2", 8, 60)
        assert len(claim.images) == 1
        assert claim.images[0]["work"]["solo"]
        assert claim.full
        assert claim.images[0]["work"]["fence"] == 2
    assert not claims.claim(db, "w2", 8, 60).images


def test_images_that_must_be_tried_alone_do_not_delay_the_others(db: Db) -> None:
    commit_new_batch(db, 2)
    lost = claims.claim(db, "w1", 8, 60)
    expire_leases(db, [image["_id"] for image in lost.images])
    claims.expire_leases(db)
    commit_new_batch(db, 4, "other")
    sizes = [len(claims.claim(db, "w2", 8, 60).images) for _ in range(4)]
    assert sorted(sizes) == [0, 1, 1, 4]


def claim_alone(db: Db, owner: str = "w") -> claims.Claim:
    """Claim the only image, which is tried alone, as if its delay had passed."""
    set_not_before(db, utc_now() - timedelta(seconds=1))
    turns.repair(db)
    claim = claims.claim(db, owner, 8, 60)
    assert [image["work"]["solo"] for image in claim.images] == [True]
    return claim


def lose(db: Db, claim: claims.Claim) -> dict[str, Any]:
    """End the leases of a claim as if its worker had died. Return the fields of the claim of the only image."""
    expire_leases(db, [image["_id"] for image in claim.images])
    assert claims.expire_leases(db) == len(claim.images)
    (image,) = db.images.find()
    work: dict[str, Any] = image["work"] | {
        "delay_s": (image["work"]["not_before"] - image["updated_at"]).total_seconds()
    }
    return work


def test_attempts_alone_in_which_the_worker_dies_are_counted_and_wait_longer_each_time(db: Db) -> None:
    commit_new_batch(db, 1)
    work = lose(db, claims.claim(db, "w", 8, 60))  # several images may have been in progress, so nothing is counted
    assert (work["losses"], work["delay_s"]) == (0, 0)
    delays = []
    for losses in range(1, SOLO_LOSSES_ALLOWED + 1):
        claim = claim_alone(db)
        assert not claims.is_exhausted(claim.images[0])
        assert claims.begin_solo(db, "w", claim.leases[0])
        work = lose(db, claim)
        assert (work["losses"], work["faults"]) == (losses, 0)
        delays.append(work["delay_s"])
    assert delays[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert claims.is_exhausted(claim_alone(db).images[0])
    validate_documents(db)


def test_an_attempt_alone_that_had_not_begun_when_the_worker_died_is_not_counted(db: Db) -> None:
    commit_new_batch(db, 1)
    lose(db, claims.claim(db, "w", 8, 60))
    begun = claim_alone(db)
    assert claims.begin_solo(db, "w", begun.leases[0])
    claims.release(db, "w", begun.leases, "disk_full")
    work = lose(db, claim_alone(db))
    assert (work["losses"], work["faults"], work["delay_s"]) == (0, 0, 0)


def test_only_the_holder_can_begin_an_attempt(db: Db) -> None:
    commit_new_batch(db, 1)
    lose(db, claims.claim(db, "w", 8, 60))
    (lease,) = claim_alone(db).leases
    assert not claims.begin_solo(db, "another", lease)
    assert not claims.begin_solo(db, "w", Lease(lease.id, lease.fence + 1))


def test_kills_and_faults_count_only_if_the_image_was_processed_alone(db: Db) -> None:
    commit_new_batch(db, 1)
    claim = claims.claim(db, "w", 8, 60)
    for losses in range(2):
        claims.release(db, "w", claim.leases, "helper_killed", solo=True, loss=True)
        assert db.images.count_documents({"work.losses": losses, "work.faults": 0}) == 1
        claim = claim_alone(db)
    for faults in range(1, SOLO_DEATHS_ALLOWED + 1):
        assert not claims.is_exhausted(claim.images[0])
        claims.release(db, "w", claim.leases, "KeyError", solo=True, fault=True)
        assert db.images.count_documents({"work.losses": 1, "work.faults": faults}) == 1
        claim = claim_alone(db)
    assert claims.is_exhausted(claim.images[0])
    validate_documents(db)


def test_read_errors_count_from_the_first_attempt_until_no_further_one_is_allowed(db: Db) -> None:
    commit_new_batch(db, 1)
    for attempt in range(1, READ_ERRORS_ALLOWED):
        claim = claims.claim(db, "w", 8, 60)
        assert not claims.is_unreadable(claim.images[0])
        claims.release(db, "w", claim.leases, "blobs_unavailable", delay=False, solo=True, read_error=True)
        assert db.images.count_documents({"work.read_errors": attempt, "work.faults": 0, "work.losses": None}) == 1
    assert claims.is_unreadable(claims.claim(db, "w", 8, 60).images[0])
    validate_documents(db)


def test_losses_of_images_that_an_earlier_release_requeued_count_from_zero(db: Db) -> None:
    commit_new_batch(db, 1)
    lose(db, claims.claim(db, "w", 8, 60))
    db.images.update_many({}, {"$unset": {"work.losses": ""}})
    claim = claim_alone(db)
    assert not claims.is_exhausted(claim.images[0])
    claims.begin_solo(db, "w", claim.leases[0])
    assert lose(db, claim)["losses"] == 1
