"""New work is announced at once, or together with other new work of the same moment."""

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.queue.wakeups import WakeupThread


@contextmanager
def wakeup_thread(announce: Callable[[set[str]], object], interval_s: float) -> Iterator[WakeupThread[str]]:
    thread = WakeupThread(announce, interval_s)
    yield thread
    thread.close()
    assert not thread._thread.is_alive()


def test_the_first_announcement_is_made_at_once_and_the_next_ones_are_combined() -> None:
    announced: queue.Queue[set[str]] = queue.Queue()
    with wakeup_thread(announced.put, interval_s=2.0) as thread:
        thread.notify({"first"})
        assert announced.get(timeout=60) == {"first"}
        for store in ("b", "a", "b"):
            thread.notify({store})
        assert announced.get(timeout=60) == {"a", "b"}
    assert announced.empty()


def test_close_announces_the_last_work_without_waiting_for_the_interval() -> None:
    announced: queue.Queue[set[str]] = queue.Queue()
    with wakeup_thread(announced.put, interval_s=3600.0) as thread:
        thread.notify({"first"})
        assert announced.get(timeout=60) == {"first"}
        thread.notify({"last"})
    assert announced.get_nowait() == {"last"}
    assert announced.empty()


def test_a_failed_announcement_does_not_end_the_thread() -> None:
    announced: queue.Queue[set[str]] = queue.Queue()

    def announce(stores: set[str]) -> None:
        announced.put(stores)
        raise RuntimeError("cannot announce")

    with wakeup_thread(announce, interval_s=0.0) as thread:
        for store in ("a", "b"):
            thread.notify({store})
            assert announced.get(timeout=60) == {store}
