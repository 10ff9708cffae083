"""Heartbeats: which workers there are, the model of the images, and the rates at which work is finished."""

from datetime import timedelta

import pytest

from shared.queue import heartbeats
from shared.queue.heartbeats import Worker
from shared.queues import IMAGES, INSPECTIONS, JOBS
from shared.storage.mongo import Db

OLD = {"name": "grocery", "version": "1", "weights_sha256": "a" * 64}
NEW = {"name": "$grocery", "version": "2", "weights_sha256": "b" * 64}


def set_age(db: Db, owner: str, seen_s: float, started_s: float | None = None) -> None:
    """Change a heartbeat so that it was sent ``seen_s`` seconds ago, by a worker that started ``started_s`` seconds ago."""
    ages = {"seen": seen_s} | ({} if started_s is None else {"started_at": started_s})
    db.workers.update_one({"_id": owner}, [{"$set": {name: {"$subtract": ["$$NOW", int(age * 1000)]} for name, age in ages.items()}}])


def write_old_heartbeat(db: Db, owner: str) -> None:
    """Write a heartbeat as the version before wrote it."""
    db.workers.update_one({"_id": owner}, [{"$set": {"seen": "$$NOW", "pid": 7, "host": "h", "door": IMAGES.name, "hindrance": None}}], upsert=True)


def test_without_workers_the_model_is_unknown(db: Db) -> None:
    assert heartbeats.find_active_model(db) is None
    heartbeats.send_heartbeat(db, "jobs", JOBS)
    heartbeats.send_heartbeat(db, "unusable", IMAGES, "model_unusable")
    write_old_heartbeat(db, "old version")
    assert heartbeats.find_active_model(db) is None


def test_the_model_is_that_of_the_live_worker_that_was_started_last(db: Db) -> None:
    heartbeats.send_heartbeat(db, "old", IMAGES, model=OLD)
    heartbeats.send_heartbeat(db, "new", IMAGES, model=NEW)
    heartbeats.send_heartbeat(db, "inspector", INSPECTIONS, model=OLD)
    set_age(db, "old", 0, 50)
    set_age(db, "new", 5, 20)
    assert heartbeats.find_active_model(db) == NEW
    heartbeats.send_heartbeat(db, "old", IMAGES, model=OLD)  # a further heartbeat does not change when a worker was started
    assert heartbeats.find_active_model(db) == NEW
    set_age(db, "new", heartbeats.WORKER_TIMEOUT_S + 5)
    assert heartbeats.find_active_model(db) == OLD


def test_without_a_live_worker_the_model_is_that_of_the_one_that_was_seen_last(db: Db) -> None:
    for owner, model, seen_s, started_s in (("a", OLD, 40, 100), ("b", NEW, 30, 200)):
        heartbeats.send_heartbeat(db, owner, IMAGES, model=model)
        set_age(db, owner, seen_s, started_s)
    assert heartbeats.find_active_model(db) == NEW


def test_workers_are_listed_alive_or_not_until_they_are_forgotten(db: Db) -> None:
    heartbeats.send_heartbeat(db, "b", IMAGES, model=OLD, finished=(30, 60.0))
    heartbeats.send_heartbeat(db, "a", JOBS, "store_changed", finished=(1, 3.0))
    write_old_heartbeat(db, "c")
    heartbeats.send_heartbeat(db, "d", INSPECTIONS)
    set_age(db, "d", 100)
    workers = heartbeats.list_workers(db)
    assert [(worker.id, worker.queue, worker.is_alive) for worker in workers] == [
        ("a", JOBS, True), ("b", IMAGES, True), ("c", IMAGES, True), ("d", INSPECTIONS, False),
    ]  # fmt: skip
    a, b, c, _ = workers
    assert (a.impediment, a.finished_per_minute, a.model) == ("store_changed", None, None)
    assert (b.impediment, b.finished_per_minute, b.model) == (None, 30, OLD)
    assert (c.started_at, c.model, c.finished_per_minute) == (None, None, None)
    assert b.started_at is not None
    assert b.last_seen - b.started_at < timedelta(seconds=60)
    assert [worker.id for worker in heartbeats.list_workers(db, after="a", limit=2)] == ["b", "c"]
    set_age(db, "d", 3700)
    heartbeats.send_heartbeat(db, "a", JOBS)
    assert [worker.id for worker in heartbeats.list_workers(db)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("finished", "rate"),
    [([], None), ([None], None), ([(5, 1.0)], None), ([(0, 60.0)], 0), ([(5, 60.0), (20, 120.0), None, (9, 1.0)], 15)],
)
def test_the_rate_of_a_queue_is_the_sum_of_the_known_rates(db: Db, finished: list[tuple[int, float] | None], rate: float | None) -> None:
    for number, counted in enumerate(finished):
        heartbeats.send_heartbeat(db, f"worker {number}", IMAGES, finished=counted)
    heartbeats.send_heartbeat(db, "dead", IMAGES, finished=(1000, 60.0))
    set_age(db, "dead", 100)
    workers: list[Worker] = heartbeats.list_workers(db)
    assert heartbeats.sum_rates(workers) == rate


def test_live_workers_are_found_among_many_dead_ones(db: Db) -> None:
    heartbeats.send_heartbeat(db, "z", IMAGES, finished=(30, 60.0), busy=(12, 6.0))
    heartbeats.send_heartbeat(db, "jobs", JOBS)
    write_old_heartbeat(db, "y")
    dead = db.workers.find_one({"_id": "z"}, {"_id": 0, "seen": 0})
    assert dead is not None
    heartbeats.send_heartbeat(db, "a", IMAGES)
    set_age(db, "a", 100)
    (seen,) = db.workers.distinct("seen", {"_id": "a"})
    db.workers.insert_many([{"_id": f"dead {number}", "seen": seen} | dead for number in range(1100)])
    live = {worker.id: worker for worker in heartbeats.list_live_workers(db, IMAGES)}
    assert set(live) == {"y", "z"}
    assert (live["y"].is_alive, live["y"].finished_per_busy_minute) == (True, None)
    assert (live["z"].finished_per_minute, live["z"].finished_per_busy_minute) == (30, 120)


@pytest.mark.parametrize(
    ("busy", "rate"),
    [
        ([], None),
        ([None, (0, 10.0)], None),
        ([(5, 0.0)], None),
        ([(5, 60.0), (20, 120.0)], 15),
        ([(5, 60.0), (15, 60.0), (0, 3.0), None], 40),  # the others count like the average of these two
    ],
)
def test_the_rate_of_busy_workers_is_the_sum_of_those_that_can_work(db: Db, busy: list[tuple[int, float] | None], rate: float | None) -> None:
    for number, counted in enumerate(busy):
        heartbeats.send_heartbeat(db, f"worker {number}", IMAGES, busy=counted)
    heartbeats.send_heartbeat(db, "no model", IMAGES, "model_unusable", busy=(1000, 60.0))
    heartbeats.send_heartbeat(db, "dead", IMAGES, busy=(1000, 60.0))
    set_age(db, "dead", 100)
    assert heartbeats.estimate_rate(heartbeats.list_workers(db)) == rate
