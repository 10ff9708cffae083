"""An inspection is done once, however many clients request it; it is requested again when it is no longer fresh, and it never stays pending forever."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect

from scripts.local.temporary_servers import RedisServer
from shared import settings
from shared.bootstrap import open_stores
from shared.errors import NotFound, SourceTooLarge
from shared.inspections import jobs, recipes, results
from shared.inspections.jobs import Job, Validators
from shared.inspections.notifications import Publisher, Subscriber
from shared.inspections.recipes import Augment, Describe, Dream, Source
from shared.queues import INSPECTIONS
from shared.storage.blob_keys import incoming_key, inspection_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.support.ledger import validate_documents
from tests.support.service_stack import wait_until
from worker.sweep.inspections import InspectionSweep

pytestmark = pytest.mark.slow

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


def test_the_oldest_requests_are_claimed_first_and_no_more_than_the_size_of_the_claim(db: Db) -> None:
    requested = []
    for source in make_sources(5):
        requested.append(request(db, source)[0].id)
        time.sleep(0.002)  # the database's clock has a resolution of a millisecond
    assert [job.id for job in claim(db, 2)] == requested[:2]
    assert [job.id for job in claim(db)] == requested[2:]


def test_concurrent_inspectors_never_claim_the_same_inspection(db: Db) -> None:
    for source in make_sources(40):
        request(db, source)
    with ThreadPoolExecutor(8) as threads:
        claimed = list(threads.map(lambda number: claim(db, 10, f"w{number}"), range(8)))
    ids = [job.id for claim in claimed for job in claim]
    assert len(ids) == len(set(ids)) == 40


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


def test_an_inspection_that_no_inspector_claims_fails_after_a_while(db: Db) -> None:
    job, _ = request(db)
    assert jobs.fail_overdue(db, 100, 10) == 0
    db.inspections.update_one({"_id": job.id}, [{"$set": {"asked_at": {"$subtract": ["$$NOW", 101_000]}}}])
    assert jobs.fail_overdue(db, 100, 10) == 1
    found = jobs.get(db, job.id)
    assert (found.status, found.fresh) == ("failed", True)
    assert found.error is not None
    assert (found.error["status"], found.error["code"]) == (503, "unavailable")
    assert found.error["detail"] == "No inspector was available in time; retry later."
    validate_documents(db)


def test_claimed_inspections_are_returned_when_the_database_fails_at_the_next_one(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in make_sources(3):
        request(db, source)
    real, calls = Collection.find_one_and_update, iter([True, False])

    def fail(self: Any, *args: Any, **kwargs: Any) -> Any:
        if next(calls):
            return real(self, *args, **kwargs)
        raise AutoReconnect("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Collection, "find_one_and_update", fail)
        assert len(claim(db)) == 1


def test_a_released_inspection_waits_for_its_delay_and_keeps_its_age(db: Db) -> None:
    job, _ = request(db)
    db.inspections.update_one({"_id": job.id}, [{"$set": {"asked_at": {"$subtract": ["$$NOW", 5000]}}}])
    (held,) = claim(db)
    assert 4.5 < held.age_s < 60
    jobs.release(db, "w", [held.lease], 100)
    assert not jobs.has_claimable(db)
    assert claim(db) == []
    db.inspections.update_one({"_id": job.id}, [{"$set": {"not_before": "$$NOW"}}])
    assert jobs.has_claimable(db)
    assert claim(db)[0].fence == held.fence + 1


def test_a_lost_claim_cannot_finish_fail_or_release(db: Db) -> None:
    request(db)
    (lost,) = claim(db)
    end_leases(db)
    assert jobs.expire_leases(db, 10) == 1
    (heir,) = claim(db, owner="heir")
    assert not finish(db, lost)
    assert not jobs.fail(db, "w", lost, NotFound("no"), failed_s=1, keep_s=1)
    jobs.release(db, "w", [lost.lease])
    assert jobs.get(db, lost.id).status == "processing"
    assert finish(db, heir, owner="heir")


def test_a_renewed_lease_does_not_end(db: Db) -> None:
    request(db)
    (held,) = claim(db)
    end_leases(db)
    assert jobs.renew(db, "w", [held.lease], 30) == {held.lease}
    assert jobs.expire_leases(db, 10) == 0


def test_an_inspection_whose_worker_vanished_three_times_fails(db: Db) -> None:
    job, _ = request(db)
    for number in range(3):
        assert jobs.get(db, job.id).status == "queued"
        claim(db, owner=f"w{number}")
        end_leases(db)
        jobs.expire_leases(db, 100)
    found = jobs.get(db, job.id)
    assert (found.status, found.fresh) == ("failed", True)
    assert found.error is not None
    assert (found.error["code"], found.error["status"]) == ("inspection_lost", 500)
    validate_documents(db)


def test_an_unknown_inspection_is_not_found(db: Db) -> None:
    assert jobs.find(db, "0" * 32) is None
    with pytest.raises(NotFound):
        jobs.get(db, "0" * 32)


def test_the_id_of_a_result_is_determined_by_image_recipe_and_model() -> None:
    ids = [
        results.result_id(SHA, Describe(), {"name": "a"}),
        results.result_id("b" * 64, Describe(), {"name": "a"}),
        results.result_id(SHA, Describe(), {"name": "b"}),
        results.result_id(SHA, Describe(Dream()), {"name": "a"}),
        results.result_id(SHA, Augment(("rotate",)), None),
    ]
    assert len(set(ids)) == len(ids)
    assert ids[0] == results.result_id(SHA, Describe(), {"name": "a"})


def test_a_result_that_is_being_removed_is_not_returned_and_can_be_stored_again_afterwards(db: Db) -> None:
    assert results.store(db, "1" * 32, {"width": 1}, "a" * 32, 10) == "a" * 32
    assert results.store(db, "1" * 32, {"width": 2}, "b" * 32, 10) == "a" * 32  # another run stored it first
    db.inspection_results.update_one({"_id": "1" * 32}, {"$set": {"going": True}})
    assert results.use(db, "1" * 32) is None
    assert results.store(db, "1" * 32, {"width": 1}, "b" * 32, 10) is None
    results.delete_marked(db, "1" * 32)
    assert results.store(db, "1" * 32, {"width": 1}, "c" * 32, 10) == "c" * 32
    found = results.use(db, "1" * 32)
    assert found is not None
    assert (found["fields"], found["folder"]) == ({"width": 1}, "c" * 32)
    validate_documents(db)


def set_last_use(db: Db, result: str, seconds_ago: float) -> None:
    db.inspection_results.update_one(
        {"_id": result}, [{"$set": {"used_at": {"$subtract": ["$$NOW", int(seconds_ago * 1000)]}}}]
    )


def test_results_that_are_old_or_too_many_are_removed_the_least_recently_used_first(db: Db) -> None:
    for number in range(5):
        results.store(db, f"{number}" * 32, {}, f"{number}a" * 16, 100)
        set_last_use(db, f"{number}" * 32, 500 - 100 * number)
    assert results.mark_expired(db, 1000, 1000, 10) == []
    assert set(results.mark_expired(db, 350, 1000, 10)) == {(digit * 32, f"{digit}a" * 16) for digit in "01"}
    assert {result for result, _ in results.mark_expired(db, 1000, 150, 10)} == {digit * 32 for digit in "0123"}
    assert results.use(db, "4" * 32) is not None


class SweepSetup:
    """A sweep over a blob store of its own; Redis is unreachable by default."""

    def __init__(self, db: Db, mongo: settings.Mongo, root: Path, redis_url: str = "redis://127.0.0.1:1/0") -> None:
        self.blobs = LocalBlobs(root)
        self.root = root
        configuration = settings.Settings(
            mongo=mongo,
            blobs=settings.Blobs(root=root, min_free_bytes=0),
            redis=settings.Redis(url=redis_url),
            inspect=settings.Inspect(fresh_s=50, keep_s=50, max_store_bytes=1000),
        )
        self.stores = open_stores(configuration, app="test", db=db, blobs=self.blobs)
        self.wakeups = self.stores.wakeups[INSPECTIONS]
        self.sweep = InspectionSweep(self.stores)

    def clean(self) -> None:
        for _ in range(256):  # one shard each
            self.sweep.clean(time.monotonic() + 60)


@pytest.fixture
def sweep_setup(db: Db, mongo: settings.Mongo, blobs_root: Path) -> SweepSetup:
    return SweepSetup(db, mongo, blobs_root)


def test_the_sweep_removes_old_results_with_their_files_and_keeps_the_others(db: Db, sweep_setup: SweepSetup) -> None:
    old, young = "1" * 32, "2" * 32
    for result, age_s in ((old, 60), (young, 40)):
        sweep_setup.blobs.write(inspection_key(result[::-1], "original"), [b"jpeg"])
        results.store(db, result, {}, result[::-1], 4)
        set_last_use(db, result, age_s)
    sweep_setup.clean()
    assert [sweep_setup.blobs.stat(inspection_key(result[::-1], "original")) is None for result in (old, young)] == [
        True,
        False,
    ]
    assert [row["_id"] for row in db.inspection_results.find()] == [young]


def test_the_sweep_removes_old_files_that_belong_to_no_result(sweep_setup: SweepSetup) -> None:
    keys = [
        inspection_key("3" * 32, "original"),
        incoming_key("4" * 32),
        inspection_key("5" * 32, "original"),
        incoming_key("6" * 32),
    ]
    for key in keys:
        sweep_setup.blobs.write(key, [b"jpeg"])
    for key in keys[:2]:
        os.utime(sweep_setup.root / key, (1, 1))
    sweep_setup.clean()
    assert [sweep_setup.blobs.stat(key) is None for key in keys] == [True, True, False, False]


def test_the_sweep_queues_the_inspections_of_vanished_workers_and_publishes_a_wakeup(
    db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str
) -> None:
    sweep_setup = SweepSetup(db, mongo, blobs_root, redis_url)
    request(db)
    claim(db)
    end_leases(db)
    before = sweep_setup.wakeups.count_waiting()
    assert before is not None
    sweep_setup.sweep.repair()
    assert jobs.has_claimable(db)
    assert sweep_setup.wakeups.count_waiting() == max(1, before)
    sweep_setup.wakeups.close()


def test_a_use_is_recorded_once_a_minute(db: Db) -> None:
    results.store(db, "1" * 32, {}, "a" * 32, 4)
    for seconds_ago, recorded in ((30, False), (90, True)):
        set_last_use(db, "1" * 32, seconds_ago)
        results.use(db, "1" * 32)
        (row,) = db.inspection_results.aggregate([{"$project": {"age": {"$subtract": ["$$NOW", "$used_at"]}}}])
        assert (row["age"] < 20_000) is recorded


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
        yield server


def test_notifications_reach_every_waiting_thread_and_resume_when_redis_is_back(redis: RedisServer) -> None:
    configuration = settings.Redis(url=redis.url)
    publisher, subscriber = Publisher(configuration), Subscriber(configuration)
    with subscriber.expect("a") as first, subscriber.expect("a") as second, subscriber.expect("b") as other:

        def notified(*events: threading.Event) -> bool:
            publisher.publish("a")
            return all(event.wait(0.2) for event in events)

        wait_until(
            lambda: notified(first, second), 60, "both notifications"
        )  # the first one may be published before the subscription exists
        assert not other.is_set()
        redis.kill()
        first.clear()
        publisher.publish("a")  # it is lost, and the call does not fail
        redis.start()
        wait_until(lambda: notified(first), 60, "a notification after the restart")
    assert subscriber._waiting == {}
