"""Helpers for the tests of inspections in the database: request, claim and finish them."""

from collections.abc import Sequence

from shared.inspections import jobs, recipes, results
from shared.inspections.jobs import Job, Validators
from shared.inspections.recipes import Describe, Source
from shared.storage.mongo import Db

SOURCE = Source(url="http://example.org/shelf.jpg")
SHA = "a" * 64


def request(
    db: Db, source: Source = SOURCE, recipe: recipes.Recipe | None = None, *, client: str = "c", anew: bool = False
) -> tuple[Job, bool]:
    return jobs.request(db, source, recipe or Describe(), client, keep_s=100, anew=anew)


def claim(db: Db, size: int = 8, owner: str = "w") -> list[Job]:
    return jobs.claim(db, owner, size, 30)


def finish(db: Db, job: Job, *, owner: str = "w", fresh_s: float = 100, validators: Validators | None = None) -> bool:
    result = results.result_id(SHA, job.recipe, None)
    results.store(db, result, {"width": 1}, "f" * 32, 10)
    return jobs.finish(db, owner, job, result, validators or Validators(SHA), fresh_s=fresh_s, keep_s=100)


def make_sources(count: int) -> Sequence[Source]:
    return [Source(url=f"http://example.org/{number}.jpg") for number in range(count)]


def end_leases(db: Db) -> None:
    db.inspections.update_many({"status": "processing"}, [{"$set": {"lease_until": {"$subtract": ["$$NOW", 1000]}}}])


def set_last_use(db: Db, result: str, seconds_ago: float) -> None:
    db.inspection_results.update_one(
        {"_id": result}, [{"$set": {"used_at": {"$subtract": ["$$NOW", int(seconds_ago * 1000)]}}}]
    )
