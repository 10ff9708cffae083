"""``caplog`` contains only what the current test logs; see ``tests/conftest.py``."""

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

log = logging.getLogger("shelfsight.error")


@pytest.fixture(scope="module")
def log_in_earlier_thread() -> Iterator[Callable[[], None]]:
    """Log a warning in a thread that was started before the test."""
    due = threading.Event()

    def run() -> None:
        due.wait()
        log.warning("of an earlier test")

    thread = threading.Thread(target=run)
    thread.start()

    def log_now() -> None:
        due.set()
        thread.join()

    yield log_now
    log_now()


def test_records_of_threads_that_earlier_tests_left_behind_are_ignored(
    log_in_earlier_thread: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    own = threading.Thread(target=log.warning, args=("of a thread of this test",))
    with caplog.at_level(logging.WARNING, log.name):
        log_in_earlier_thread()
        own.start()
        own.join()
        log.warning("of this test")
    assert caplog.messages == ["of a thread of this test", "of this test"]
