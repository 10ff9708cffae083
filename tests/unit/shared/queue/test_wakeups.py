"""New work is announced at once, or together with other new work of the same moment."""

import queue

from shared.queue.wakeups import WakeupThread


def test_the_first_announcement_is_made_at_once_and_the_next_ones_are_combined() -> None:
    announced: queue.Queue[set[str]] = queue.Queue()
    thread = WakeupThread(announced.put, interval_s=2.0)
    thread.notify({"first"})
    assert announced.get(timeout=60) == {"first"}
    for store in ("b", "a", "b"):
        thread.notify({store})
    assert announced.get(timeout=60) == {"a", "b"}
    assert announced.empty()


def test_a_failed_announcement_does_not_end_the_thread() -> None:
    announced: queue.Queue[set[str]] = queue.Queue()

    def announce(stores: set[str]) -> None:
        announced.put(stores)
        raise RuntimeError("cannot announce")

    thread = WakeupThread(announce, interval_s=0.0)
    for store in ("a", "b"):
        thread.notify({store})
        assert announced.get(timeout=60) == {store}
