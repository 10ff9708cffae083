"""Notifications that an inspection has ended."""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.local.temporary_servers import RedisServer
from shared import settings
from shared.inspections.notifications import Publisher, Subscriber
from tests.support.service_stack import wait_until

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("server", ["running", "away"])
def test_close_ends_the_thread(redis: RedisServer, server: str) -> None:
    if server == "away":
        redis.kill()
    subscriber = Subscriber(settings.Redis(url=redis.url))
    with subscriber.expect("a"):
        pass
    thread = subscriber._thread
    assert thread is not None
    assert thread.is_alive()
    subscriber.close()
    thread.join(60)
    assert not thread.is_alive()
