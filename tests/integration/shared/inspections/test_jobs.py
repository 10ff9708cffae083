"""An inspection is done once, however many ask; it is asked for again when it is old, and it never hangs for ever."""

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
from shared.inspections.jobs import Job, Seen
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

HERE = Source(url="http://example.org/shelf.jpg")
SHA = "a" * 64


def ask(db: Db, source: Source = HERE, recipe: recipes.Recipe | None = None, *, client: str = "c", anew: bool = False) -> tuple[Job, bool]:
    return jobs.ask(db, source, recipe or Describe(), client, keep_s=100, anew=anew)


def claim(db: Db, most: int = 8, owner: str = "w") -> list[Job]:
    return jobs.claim(db, owner, most, 30)


def finish(db: Db, job: Job, *, owner: str = "w", fresh_s: float = 100, seen: Seen | None = None) -> bool:
    result = results.result_id(SHA, job.recipe, None)
    results.keep(db, result, {"width": 1}, "f" * 32, 10)
    return jobs.finish(db, owner, job, result, seen or Seen(SHA), fresh_s=fresh_s, keep_s=100)


def urls(count: int) -> Sequence[Source]:
    return [Source(url=f"http://example.org/{number}.jpg") for number in range(count)]


def end_leases(db: Db) -> None:
    db.inspections.update_many({"status": "processing"}, [{"$set": {"lease_until": {"$subtract": ["$$NOW", 1000]}}}])


def test_a_hundred_who_ask_at_once_have_one_job_and_one_of_them_rings(db: Db) -> None:
    with ThreadPoolExecutor(32) as threads:
        found = list(threads.map(lambda _: ask(db), range(100)))
    assert len({job.id for job, _ in found}) == 1
    assert sum(mine for _, mine in found) == 1
    assert [job.id for job in claim(db)] == [found[0][0].id]
    assert claim(db) == []
    validate_documents(db)


def test_another_picture_or_another_recipe_is_another_inspection(db: Db) -> None:
    kinds: list[recipes.Recipe] = [Describe(), Describe(Dream()), Describe(Dream(layer=2)), Augment(("rotate",)), Augment(("rotate",), seed=1), Augment(("rotate", "noise"))]
    asked = [ask(db, recipe=kind)[0] for kind in kinds] + [ask(db, Source(sha256=SHA))[0], ask(db, Source(url="http://example.org/other"))[0]]
    assert len({job.id for job in asked}) == len(asked)
    assert [job.recipe for job in asked[: len(kinds)]] == kinds
    assert asked[-2].source == Source(sha256=SHA)
    validate_documents(db)


def test_what_is_done_is_taken_as_it_stands_while_it_is_fresh_and_asked_for_anew_then(db: Db) -> None:
    ask(db)
    (held,) = claim(db)
    assert finish(db, held, fresh_s=100, seen=Seen(SHA, "http://example.org/there", '"tag"', "Mon"))
    job, mine = ask(db)
    assert (job.status, job.fresh, mine) == ("done", True, False)
    assert job.seen == Seen(SHA, "http://example.org/there", '"tag"', "Mon")
    db.inspections.update_one({"_id": job.id}, [{"$set": {"fresh_until": {"$subtract": ["$$NOW", 1]}}}])
    assert not jobs.get(db, job.id).fresh
    again, mine = ask(db)
    assert (again.status, again.result, again.seen, mine) == ("queued", job.result, job.seen, True)
    assert again.fence == held.fence
    validate_documents(db)


def test_a_fresh_one_is_made_anew_when_what_it_names_is_gone(db: Db) -> None:
    ask(db)
    finish(db, claim(db)[0])
    assert ask(db, anew=True)[1]
    assert not ask(db, anew=True)[1]  # it is being made


def test_a_failure_is_told_to_all_who_ask_soon(db: Db) -> None:
    ask(db)
    (held,) = claim(db)
    error = SourceTooLarge("Too large: $$ROOT.", extra={"limit": "max_source_bytes", "value": 4})
    assert jobs.fail(db, "w", held, error, failed_s=100, keep_s=100)
    job, mine = ask(db)
    assert (job.status, job.fresh, mine) == ("failed", True, False)
    assert job.error == {"status": 413, "title": "Source too large", "code": "source_too_large", "detail": "Too large: $$ROOT.", "extra": error.extra}
    validate_documents(db)


@pytest.mark.parametrize("text", ["$where", "$$NOW", "$asked_by", "a.b", "{'$literal': 1}"])
def test_what_strangers_send_is_stored_and_never_computed(text: str, db: Db) -> None:
    url = f"http://example.org/{text}"
    job, _ = ask(db, Source(url=url))
    (held,) = claim(db)
    finish(db, held, seen=Seen(SHA, text, text, text))
    found = jobs.get(db, job.id)
    assert found.source.url == url
    assert found.seen == Seen(SHA, text, text, text)


def test_those_asked_for_first_come_first_and_no_more_than_asked_for(db: Db) -> None:
    asked = []
    for source in urls(5):
        asked.append(ask(db, source)[0].id)
        time.sleep(0.002)  # the database's clock has milliseconds
    assert [job.id for job in claim(db, 2)] == asked[:2]
    assert [job.id for job in claim(db)] == asked[2:]


def test_two_inspectors_never_have_the_same(db: Db) -> None:
    for source in urls(40):
        ask(db, source)
    with ThreadPoolExecutor(8) as threads:
        claimed = list(threads.map(lambda number: claim(db, 10, f"w{number}"), range(8)))
    ids = [job.id for some in claimed for job in some]
    assert len(ids) == len(set(ids)) == 40


def test_what_is_pending_is_counted_in_all_and_of_a_client(db: Db) -> None:
    for source in urls(3):
        ask(db, source)
    (held,) = claim(db, 1)
    assert jobs.count_pending(db) == {"queued": 2, "processing": 1}
    assert [jobs.has_pending(db, "c", count) for count in (1, 3, 4)] == [True, True, False]
    assert not jobs.has_pending(db, "another", 1)
    finish(db, held)
    assert jobs.count_pending(db) == {"queued": 2, "processing": 0}
    assert not jobs.has_pending(db, "c", 3)


def test_what_nobody_comes_for_fails_after_a_while(db: Db) -> None:
    job, _ = ask(db)
    assert jobs.give_up(db, 100, 10) == 0
    db.inspections.update_one({"_id": job.id}, [{"$set": {"asked_at": {"$subtract": ["$$NOW", 101_000]}}}])
    assert jobs.give_up(db, 100, 10) == 1
    found = jobs.get(db, job.id)
    assert (found.status, found.fresh) == ("failed", True)
    assert found.error is not None
    assert (found.error["status"], found.error["code"]) == (503, "unavailable")
    validate_documents(db)


def test_what_was_taken_is_worked_on_when_the_database_goes_away_at_the_next(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in urls(3):
        ask(db, source)
    real, calls = Collection.find_one_and_update, iter([True, False])

    def failing(self: Any, *given: Any, **named: Any) -> Any:
        if next(calls):
            return real(self, *given, **named)
        raise AutoReconnect("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Collection, "find_one_and_update", failing)
        assert len(claim(db)) == 1


def test_one_given_back_waits_for_its_delay_and_keeps_its_age(db: Db) -> None:
    job, _ = ask(db)
    db.inspections.update_one({"_id": job.id}, [{"$set": {"asked_at": {"$subtract": ["$$NOW", 5000]}}}])
    (held,) = claim(db)
    assert 4.5 < held.asked_for_s < 60
    jobs.give_back(db, "w", [held], 100)
    assert not jobs.has_claimable(db)
    assert claim(db) == []
    db.inspections.update_one({"_id": job.id}, [{"$set": {"not_before": "$$NOW"}}])
    assert jobs.has_claimable(db)
    assert claim(db)[0].fence == held.fence + 1


def test_a_lost_claim_finishes_nothing_and_gives_nothing_back(db: Db) -> None:
    ask(db)
    (lost,) = claim(db)
    end_leases(db)
    assert jobs.expire_leases(db, 10) == 1
    (heir,) = claim(db, owner="heir")
    assert not finish(db, lost)
    assert not jobs.fail(db, "w", lost, NotFound("no"), failed_s=1, keep_s=1)
    jobs.give_back(db, "w", [lost])
    assert jobs.get(db, lost.id).status == "processing"
    assert finish(db, heir, owner="heir")


def test_a_lease_that_is_renewed_goes_on(db: Db) -> None:
    ask(db)
    (held,) = claim(db)
    end_leases(db)
    jobs.renew(db, "w", [held], 30)
    assert jobs.expire_leases(db, 10) == 0


def test_an_inspection_over_which_three_workers_vanished_fails(db: Db) -> None:
    job, _ = ask(db)
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


def test_unknown_is_not_found(db: Db) -> None:
    assert jobs.find(db, "0" * 32) is None
    with pytest.raises(NotFound):
        jobs.get(db, "0" * 32)


def test_a_result_is_named_by_picture_recipe_and_model() -> None:
    named = [
        results.result_id(SHA, Describe(), {"name": "a"}),
        results.result_id("b" * 64, Describe(), {"name": "a"}),
        results.result_id(SHA, Describe(), {"name": "b"}),
        results.result_id(SHA, Describe(Dream()), {"name": "a"}),
        results.result_id(SHA, Augment(("rotate",)), None),
    ]
    assert len(set(named)) == len(named)
    assert named[0] == results.result_id(SHA, Describe(), {"name": "a"})


def test_a_result_being_removed_is_given_to_nobody_and_can_be_made_again_afterwards(db: Db) -> None:
    assert results.keep(db, "1" * 32, {"width": 1}, "a" * 32, 10) == "a" * 32
    assert results.keep(db, "1" * 32, {"width": 2}, "b" * 32, 10) == "a" * 32  # another inspector was faster
    db.inspection_results.update_one({"_id": "1" * 32}, {"$set": {"going": True}})
    assert results.use(db, "1" * 32) is None
    assert results.keep(db, "1" * 32, {"width": 1}, "b" * 32, 10) is None
    results.forget(db, "1" * 32)
    assert results.keep(db, "1" * 32, {"width": 1}, "c" * 32, 10) == "c" * 32
    found = results.use(db, "1" * 32)
    assert found is not None
    assert (found["fields"], found["folder"]) == ({"width": 1}, "c" * 32)
    validate_documents(db)


def use_at(db: Db, result: str, seconds_ago: float) -> None:
    db.inspection_results.update_one({"_id": result}, [{"$set": {"used_at": {"$subtract": ["$$NOW", int(seconds_ago * 1000)]}}}])


def test_results_go_when_they_are_old_or_too_many_the_longest_unused_first(db: Db) -> None:
    for number in range(5):
        results.keep(db, f"{number}" * 32, {}, f"{number}a" * 16, 100)
        use_at(db, f"{number}" * 32, 500 - 100 * number)
    assert results.mark_old(db, 1000, 1000, 10) == []
    assert set(results.mark_old(db, 350, 1000, 10)) == {(one * 32, f"{one}a" * 16) for one in "01"}
    assert {name for name, _ in results.mark_old(db, 1000, 150, 10)} == {one * 32 for one in "0123"}
    assert results.use(db, "4" * 32) is not None


class Sweeping:
    """A sweep over a store of its own, on a Redis that is away."""

    def __init__(self, db: Db, mongo: settings.Mongo, root: Path, redis_url: str = "redis://127.0.0.1:1/0") -> None:
        self.blobs = LocalBlobs(root)
        self.root = root
        made = settings.Settings(
            mongo=mongo,
            blobs=settings.Blobs(root=root, min_free_bytes=0),
            redis=settings.Redis(url=redis_url),
            inspect=settings.Inspect(fresh_s=50, keep_s=50, max_store_bytes=1000),
        )
        self.stores = open_stores(made, app="test", db=db, blobs=self.blobs)
        self.wakeups = self.stores.wakeups[INSPECTIONS]
        self.sweep = InspectionSweep(self.stores)

    def clean(self) -> None:
        for _ in range(256):  # a shard each
            self.sweep.clean(time.monotonic() + 60)


@pytest.fixture
def sweeping(db: Db, mongo: settings.Mongo, blobs_root: Path) -> Sweeping:
    return Sweeping(db, mongo, blobs_root)


def test_the_sweep_removes_old_results_with_their_pictures_and_keeps_the_others(db: Db, sweeping: Sweeping) -> None:
    old, young = "1" * 32, "2" * 32
    for result, age_s in ((old, 60), (young, 40)):
        sweeping.blobs.write(inspection_key(result[::-1], "original"), [b"jpeg"])
        results.keep(db, result, {}, result[::-1], 4)
        use_at(db, result, age_s)
    sweeping.clean()
    assert [sweeping.blobs.stat(inspection_key(result[::-1], "original")) is None for result in (old, young)] == [True, False]
    assert [row["_id"] for row in db.inspection_results.find()] == [young]


def test_the_sweep_removes_bytes_of_nobody_when_they_are_old(sweeping: Sweeping) -> None:
    keys = [inspection_key("3" * 32, "original"), incoming_key("4" * 32), inspection_key("5" * 32, "original"), incoming_key("6" * 32)]
    for key in keys:
        sweeping.blobs.write(key, [b"jpeg"])
    for key in keys[:2]:
        os.utime(sweeping.root / key, (1, 1))
    sweeping.clean()
    assert [sweeping.blobs.stat(key) is None for key in keys] == [True, True, False, False]


def test_the_sweep_queues_what_was_left_behind_and_rings_for_it(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> None:
    sweeping = Sweeping(db, mongo, blobs_root, redis_url)
    ask(db)
    claim(db)
    end_leases(db)
    before = sweeping.wakeups.count_waiting()
    assert before is not None
    sweeping.sweep.repair()
    assert jobs.has_claimable(db)
    assert sweeping.wakeups.count_waiting() == max(1, before)
    sweeping.wakeups.close()


def test_a_use_is_noted_once_a_minute(db: Db) -> None:
    results.keep(db, "1" * 32, {}, "a" * 32, 4)
    for seconds_ago, noted in ((30, False), (90, True)):
        use_at(db, "1" * 32, seconds_ago)
        results.use(db, "1" * 32)
        (row,) = db.inspection_results.aggregate([{"$project": {"age": {"$subtract": ["$$NOW", "$used_at"]}}}])
        assert (row["age"] < 20_000) is noted


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
        yield server


def test_notifications_reach_every_waiting_thread_and_resume_when_redis_is_back(redis: RedisServer) -> None:
    around = settings.Redis(url=redis.url)
    publisher, subscriber = Publisher(around), Subscriber(around)
    with subscriber.expect("a") as one, subscriber.expect("a") as two, subscriber.expect("b") as other:

        def told(*events: threading.Event) -> bool:
            publisher.publish("a")
            return all(event.wait(0.2) for event in events)

        wait_until(lambda: told(one, two), 60, "both hear of it")  # the first word may come before there is anybody to listen
        assert not other.is_set()
        redis.kill()
        one.clear()
        publisher.publish("a")  # in vain, and it does not fail
        redis.start()
        wait_until(lambda: told(one), 60, "it is heard again")
    assert subscriber._waiting == {}
