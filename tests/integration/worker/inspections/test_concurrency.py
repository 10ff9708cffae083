"""Inspections beside each other: a slow one delays no other, and a source gets a limited number of requests."""

import threading
from typing import Any

import pytest

from shared.inspections import jobs
from shared.inspections.recipes import Augment, Source
from tests.integration.worker.inspections.inspecting import NAMES, Inspector, serving, serving_later
from tests.support import image_sources
from tests.support.service_stack import wait_until

pytestmark = pytest.mark.slow


def test_a_slow_source_delays_no_other_inspection(inspector: Inspector, photo: bytes) -> None:
    with serving_later(photo) as (slow, released), serving(photo) as fast:
        late = inspector.request(Source(url=f"{slow.url}/a.jpg"), Augment(NAMES))
        thread = threading.Thread(target=inspector.pipeline.run, args=(lambda: None, 60))
        thread.start()
        wait_until(lambda: slow.requests, 120, "the fetch from the slow source")
        soon = inspector.request(Source(url=f"{fast.url}/b.jpg"), Augment(NAMES))
        wait_until(lambda: jobs.get(inspector.db, soon).status == "done", 120, "the inspection of the fast source")
        assert jobs.get(inspector.db, late).status == "processing"
        released.set()
        thread.join(120)
    assert not thread.is_alive()


def test_a_task_ends_in_its_time_and_a_slow_inspection_continues_beside_the_next(
    inspector: Inspector, photo: bytes
) -> None:
    with serving_later(photo) as (slow, released), serving(photo) as fast:
        late = inspector.request(Source(url=f"{slow.url}/a.jpg"), Augment(NAMES))
        assert inspector.pipeline.run(lambda: None, 0.5)  # True means that a wakeup must be published
        soon = inspector.request(Source(url=f"{fast.url}/b.jpg"), Augment(NAMES))
        wait_until(
            lambda: inspector.pipeline.run(lambda: None, 1) and jobs.get(inspector.db, soon).status == "done",
            120,
            "the inspection of the fast source",
        )
        assert jobs.get(inspector.db, late).status == "processing"
        released.set()
        assert not inspector.pipeline.run(lambda: None, 60)
    assert jobs.get(inspector.db, late).status == "done"


def test_inspections_beyond_the_limit_of_a_source_are_retried_and_done(inspector: Inspector, photo: bytes) -> None:
    never, counts = threading.Semaphore(0), []
    lock = threading.Lock()
    running = 0

    def count_connections(connection: Any, _: str) -> None:
        nonlocal running
        with lock:
            running += 1
            counts.append(running)
        never.acquire(timeout=0.2)  # long enough for the other fetches to connect if nothing prevents them
        with lock:
            running -= 1
        connection.sendall(image_sources.ok_response(photo))

    with image_sources.SourceServer(count_connections) as source:
        ids = [inspector.request(Source(url=f"{source.url}/{number}.jpg"), Augment(("noise",))) for number in range(12)]
        assert not inspector.pipeline.run(lambda: None, 60)
        assert [jobs.get(inspector.db, job_id).status for job_id in ids] == ["done"] * len(ids)
    assert max(counts) <= inspector.settings.fetch.max_per_source
