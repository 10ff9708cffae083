"""Pauses of queues: they are kept in MongoDB, name who paused, and hold until the queue is resumed."""

import threading

import pytest

from shared.queue import pauses
from shared.queues import IMAGES, INSPECTIONS, QUEUES, WorkQueue
from shared.storage.mongo import Db
from tests.support.ledger import utc_now, validate_documents


def label(queue: WorkQueue) -> str:
    return queue.label


@pytest.mark.parametrize("queue", QUEUES, ids=label)
def test_a_queue_is_paused_alone_until_it_is_resumed(db: Db, queue: WorkQueue) -> None:
    assert not pauses.is_paused(db, queue)
    assert pauses.pause(db, queue, "anna")
    assert [other for other in QUEUES if pauses.is_paused(db, other)] == [queue]
    validate_documents(db)
    assert pauses.resume(db, queue)
    assert not pauses.is_paused(db, queue)
    assert pauses.read_pauses(db) == {}
    validate_documents(db)
    assert pauses.pause(db, queue, None)
    assert pauses.is_paused(db, queue)


def test_a_repeated_pause_keeps_who_paused_first_and_when(db: Db) -> None:
    assert pauses.pause(db, IMAGES, "$anna")
    first = pauses.read_pauses(db)[IMAGES]
    assert not pauses.pause(db, IMAGES, "ben")
    again = pauses.read_pauses(db)[IMAGES]
    assert (again.by, again.at) == ("$anna", first.at)
    assert abs((first.at - utc_now()).total_seconds()) < 60
    assert first.age_s <= again.age_s < 60


def test_a_repeated_resume_changes_nothing(db: Db) -> None:
    assert not pauses.resume(db, INSPECTIONS)
    pauses.pause(db, INSPECTIONS, None)
    assert pauses.resume(db, INSPECTIONS)
    assert not pauses.resume(db, INSPECTIONS)


def test_of_concurrent_pauses_one_takes_effect(db: Db) -> None:
    paused: list[bool] = []
    barrier = threading.Barrier(8)

    def pause(number: int) -> None:
        barrier.wait(60)
        paused.append(pauses.pause(db, IMAGES, f"user {number}"))

    threads = [threading.Thread(target=pause, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(paused) == [False] * 7 + [True]
