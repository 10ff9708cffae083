"""A pool child tells in its heartbeats what it has finished."""

from typing import Any

import pytest

from worker.runtime import celery_tasks
from worker.runtime.finished_work import FinishedWork


class Identity:
    """A store identity that is as it should be."""

    def check(self) -> None:
        """Find no problem."""


def test_heartbeats_tell_the_work_and_the_busy_time() -> None:
    times = iter([0.0, 10.0, 14.0, 14.0, 100.0, 100.0])
    finished = FinishedWork(lambda: next(times))
    finished.set_busy(True)
    finished.add(6)
    finished.set_busy(False)
    sent: list[dict[str, Any]] = []

    def send(impediment: str | None, **fields: Any) -> None:
        assert impediment is None
        sent.append(fields)
        raise SystemExit  # ends the loop

    with pytest.raises(SystemExit):
        celery_tasks._send_heartbeats(send, Identity(), finished)  # type: ignore[arg-type]
    assert sent == [{"finished": (6, 100.0), "busy": (6, 4.0)}]
