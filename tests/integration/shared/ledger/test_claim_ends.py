"""How a claim ends: its lease expires, or its holder releases it."""

import time
from datetime import timedelta

import pytest

from shared.ledger import claims, turns
from shared.queue.leases import Lease
from shared.storage.mongo import Db
from tests.integration.shared.ledger.claiming import read_image, set_not_before
from tests.support.ledger import claimed_fences, commit_new_batch, expire_leases, utc_now, validate_documents


def test_a_lease_that_is_not_renewed_ends(db: Db) -> None:
    commit_new_batch(db, 2)
    (kept,), (lost,) = (claims.claim(db, "w1", 1, lease_s).images for lease_s in (60, 0.01))
    time.sleep(0.1)
    assert claims.expire_leases(db) == 1
    assert [read_image(db, image["_id"])["status"] for image in (kept, lost)] == ["processing", "queued"]


def test_a_renewed_lease_continues_and_a_lost_one_is_reported(db: Db) -> None:
    commit_new_batch(db, 2)
    claim = claims.claim(db, "w1", 8, 0.3)
    kept, lost = claimed_fences(claim)
    assert claims.renew(db, "w1", claimed_fences(claim), 60) == {kept, lost}
    time.sleep(0.4)
    assert claims.expire_leases(db) == 0
    expire_leases(db, [lost.id])
    claims.expire_leases(db)
    assert claims.renew(db, "w1", claimed_fences(claim), 60) == {kept}
    claims.claim(db, "w1", 8, 60)  # a new claim of the same owner does not revive the old one
    assert claims.renew(db, "w1", claimed_fences(claim), 60) == {kept}


def test_releases_wait_longer_each_time_and_never_count(db: Db) -> None:
    commit_new_batch(db, 1)
    delays = []
    for _ in range(8):
        claim = claims.claim(db, "w", 1, 60)
        assert claims.release(db, "w", claimed_fences(claim), "$disk_full") == 1
        image = read_image(db, claim.images[0]["_id"])
        delays.append((image["work"]["not_before"] - image["updated_at"]).total_seconds())  # type: ignore[index]
        assert (image["status"], image["error"], image["work"]["solo"]) == ("queued", None, False)  # type: ignore[index]
        assert image["work"]["released_for"] == "$disk_full"  # type: ignore[index]
        set_not_before(db, utc_now() + timedelta(hours=1))  # a second may pass before the next line
        assert not claims.claim(db, "w", 1, 60).images
        set_not_before(db, utc_now())
        turns.repair(db)
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]
    validate_documents(db)


@pytest.mark.parametrize("change", ["owner", "fence"])
def test_only_the_holder_can_release(db: Db, change: str) -> None:
    commit_new_batch(db, 1)
    claim = claims.claim(db, "w1", 1, 60)
    owner, fence = ("w2", 1) if change == "owner" else ("w1", 0)
    assert claims.release(db, owner, [Lease(claim.images[0]["_id"], fence)], "x") == 0
    assert read_image(db, claim.images[0]["_id"])["status"] == "processing"
