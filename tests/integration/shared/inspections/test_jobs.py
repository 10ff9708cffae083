"""An inspection is done once, however many clients request it, and is requested again when it is no longer fresh."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.errors import NotFound, SourceTooLarge
from shared.inspections import jobs, recipes
from shared.inspections.jobs import Validators
from shared.inspections.recipes import Augment, Describe, Dream, Source
from shared.storage.mongo import Db
from tests.integration.shared.inspections.requesting import SHA, claim, finish, make_sources, request
from tests.support.ledger import validate_documents

pytestmark = pytest.mark.slow


def test_a_hundred_concurrent_requests_have_one_job_and_one_of_them_publishes_a_wakeup(db: Db) -> None:
    with ThreadPoolExecutor(32) as threads:
        found = list(threads.map(lambda _: request(db), range(100)))
    assert len({job.id for job, _ in found}) == 1
    assert sum(queued for _, queued in found) == 1
    assert [job.id for job in claim(db)] == [found[0][0].id]
    assert claim(db) == []
    validate_documents(db)


def test_only_so_many_dreams_are_claimed_and_the_oldest_inspections_come_first(db: Db) -> None:
    order = [request(db, source, Describe(Dream()) if at in {0, 1, 2, 5} else Describe())[0].id for at, source in enumerate(make_sources(7))]
    db.inspections.update_many({}, [{"$set": {"asked_at": {"$subtract": ["$asked_at", 1000]}}}])
    for at, job_id in enumerate(order):
        db.inspections.update_one({"_id": job_id}, [{"$set": {"asked_at": {"$add": ["$asked_at", at]}}}])

    def claim_bounded(size: int, max_dreams: int) -> list[int]:
        return [order.index(job.id) for job in jobs.claim(db, "w", size, 30, max_dreams=max_dreams)]

    assert claim_bounded(3, 2) == [0, 1, 3]
    assert claim_bounded(3, 0) == [4, 6]
    assert claim_bounded(3, 0) == []
    assert claim_bounded(3, 1) == [2]
    assert claim_bounded(3, 2) == [5]


def test_another_image_or_another_recipe_is_another_inspection(db: Db) -> None:
    kinds: list[recipes.Recipe] = [
        Describe(),
        Describe(Dream()),
        Describe(Dream(layer=2)),
        Augment(("rotate",)),
        Augment(("rotate",), seed=1),
        Augment(("rotate", "noise")),
    ]
    requested = [request(db, recipe=kind)[0] for kind in kinds] + [
        request(db, Source(sha256=SHA))[0],
        request(db, Source(url="http://example.org/other"))[0],
    ]
    assert len({job.id for job in requested}) == len(requested)
    assert [job.recipe for job in requested[: len(kinds)]] == kinds
    assert requested[-2].source == Source(sha256=SHA)
    validate_documents(db)


def test_a_fresh_inspection_is_returned_as_it_is_and_an_old_one_is_queued_again(db: Db) -> None:
    request(db)
    (held,) = claim(db)
    assert finish(db, held, fresh_s=100, validators=Validators(SHA, "http://example.org/there", '"tag"', "Mon"))
    job, queued = request(db)
    assert (job.status, job.fresh, queued) == ("done", True, False)
    assert job.validators == Validators(SHA, "http://example.org/there", '"tag"', "Mon")
    db.inspections.update_one({"_id": job.id}, [{"$set": {"fresh_until": {"$subtract": ["$$NOW", 1]}}}])
    assert not jobs.get(db, job.id).fresh
    again, queued = request(db)
    assert (again.status, again.result, again.validators, queued) == ("queued", job.result, job.validators, True)
    assert again.fence == held.fence
    validate_documents(db)


def test_a_fresh_inspection_is_queued_again_when_its_result_has_been_removed(db: Db) -> None:
    request(db)
    finish(db, claim(db)[0])
    assert request(db, anew=True)[1]
    assert not request(db, anew=True)[1]  # it is queued already


def test_a_failure_is_returned_to_all_requests_while_it_is_fresh(db: Db) -> None:
    request(db)
    (held,) = claim(db)
    error = SourceTooLarge("Too large: $$ROOT.", extra={"limit": "max_source_bytes", "value": 4})
    assert jobs.fail(db, "w", held, error, failed_s=100, keep_s=100)
    job, queued = request(db)
    assert (job.status, job.fresh, queued) == ("failed", True, False)
    assert job.error == {
        "status": 413,
        "title": "Source too large",
        "code": "source_too_large",
        "detail": "Too large: $$ROOT.",
        "extra": error.extra,
    }
    validate_documents(db)


@pytest.mark.parametrize("text", ["$where", "$$NOW", "$asked_by", "a.b", "{'$literal': 1}"])
def test_text_from_clients_and_sources_is_stored_and_never_evaluated(text: str, db: Db) -> None:
    url = f"http://example.org/{text}"
    job, _ = request(db, Source(url=url))
    (held,) = claim(db)
    finish(db, held, validators=Validators(SHA, text, text, text))
    found = jobs.get(db, job.id)
    assert found.source.url == url
    assert found.validators == Validators(SHA, text, text, text)


def test_pending_inspections_are_counted_in_total_and_for_a_client(db: Db) -> None:
    for source in make_sources(3):
        request(db, source)
    (held,) = claim(db, 1)
    assert jobs.count_pending(db) == {"queued": 2, "processing": 1}
    assert [jobs.has_pending(db, "c", count) for count in (1, 3, 4)] == [True, True, False]
    assert not jobs.has_pending(db, "another", 1)
    finish(db, held)
    assert jobs.count_pending(db) == {"queued": 2, "processing": 0}
    assert not jobs.has_pending(db, "c", 3)


def test_an_unknown_inspection_is_not_found(db: Db) -> None:
    assert jobs.find(db, "0" * 32) is None
    with pytest.raises(NotFound):
        jobs.get(db, "0" * 32)
