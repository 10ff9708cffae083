"""Ctrl-C says how many requests are in progress, if there are any."""

import signal
import threading
from io import StringIO

import pytest
from rich.console import Console

from scripts.client.interrupts import handle_interrupts


@pytest.mark.parametrize(
    ("in_flight", "said"),
    [
        (0, ""),
        (1, "Waiting for 1 request in progress; press Ctrl-C again to exit immediately.\n"),
        (2, "Waiting for 2 requests in progress; press Ctrl-C again to exit immediately.\n"),
    ],
)
def test_the_first_signal_names_the_requests_in_progress(in_flight: int, said: str) -> None:
    stop, output = threading.Event(), StringIO()
    with handle_interrupts(stop, Console(file=output, width=200), lambda: in_flight, str, (signal.SIGUSR1,)) as interrupted:
        signal.raise_signal(signal.SIGUSR1)
    assert stop.is_set()
    assert interrupted.is_set()
    assert output.getvalue() == said
