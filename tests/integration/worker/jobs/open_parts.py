"""Lets workers die, and others act, at the points of a part of a job, and checks what is left."""

from collections.abc import Callable

import pytest

from shared import failpoints
from shared.catalog import (
    bulk_tags,
    tags,
)
from shared.jobs import claims
from shared.jobs.progress import HeldJob, Step
from shared.storage.mongo import Db
from tests.integration.worker.jobs.tagging import (
    check_counts,
    tag_now,
)
from tests.support.ledger import validate_documents

PLANNED, PARTLY, WRITTEN = (f"10-bulk-part-{name}" for name in ("planned", "partly-written", "written"))


class Died(BaseException):
    """The worker has died."""


def at(point: str, act: Callable[[], object]) -> None:
    """Do something when a part reaches a point for the first time."""
    left = [act]

    def hook(name: str) -> None:
        if name == point and left:
            left.pop()()

    failpoints.install(hook)


def die() -> None:
    raise Died


def do_part(db: Db, do: Callable[[Db, HeldJob], Step] = bulk_tags.do_part) -> None:
    """Claim the next job, and do a part of it."""
    claimed = claims.claim(db, "mortal", 60)
    assert claimed is not None
    do(db, HeldJob("mortal", claimed))


def die_in_part(db: Db, point: str, do: Callable[[Db, HeldJob], Step] = bulk_tags.do_part) -> None:
    """Let a worker die at a point of a part, and its lease expire."""
    at(point, die)
    with pytest.raises(Died):
        do_part(db, do)
    expire(db)


def expire(db: Db) -> None:
    db.jobs.update_many({"status": "processing"}, [{"$set": {"lease_until": {"$subtract": ["$$NOW", 1]}}}])
    claims.expire_leases(db)


def check(db: Db, *, is_due: bool) -> None:
    """Check that no part is open, and that all counts are right, although some of them may be due."""
    assert not db.tag_counts.count_documents({"open": {"$ne": 0, "$exists": True}})
    assert bool(db.tag_counts.count_documents({"due": True})) is is_due
    assert not db.jobs.count_documents({"$or": [{"open_change": {"$exists": True}}, {"rest": {"$exists": True}}]})
    assert not db.job_changes.count_documents({"plan": {"$exists": True}})
    check_counts(db)
    validate_documents(db)


def tag(db: Db, ids: list[str], *add: str, remove: tuple[str, ...] = ()) -> None:
    """Tag images in requests."""
    for start in range(0, len(ids), 4):
        tag_now(db, ids[start : start + 4], *add, remove=remove)


def revisions(db: Db) -> set[int]:
    return {row.get("revision") or 0 for row in db.images.find({"status": {"$ne": "deleting"}}, {"revision": 1})}


def tag_id_of(db: Db, name: str) -> str:
    (tag_id,) = tags.find_ids(db, name)
    return tag_id
