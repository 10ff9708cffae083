"""What Ctrl-C does: the requests in progress are completed first; a second Ctrl-C exits immediately."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from scripts.client.summary import INTERRUPTED, counted


@contextmanager
def handle_interrupts(
    stop: threading.Event, console: Console, in_flight: Callable[[], int], last_words: Callable[[], str], signals: Sequence[signal.Signals] = (signal.SIGINT,)
) -> Iterator[threading.Event]:
    """At the first signal, set ``stop``, so that the body ends after the requests in progress. At the second one, exit immediately.

    :param in_flight: returns the number of requests in progress.
    :param last_words: returns a sentence that is appended to the last message before an immediate exit.
    :returns: an event that the first signal sets.
    """
    interrupted = threading.Event()

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        if interrupted.is_set():
            # End the line of the progress bar, and show the cursor, which the bar hides.
            prefix = "\n\x1b[?25h" if console.is_terminal else ""
            # Write without the console and without Python's buffers, because the signal may have interrupted the
            # writing of the first message.
            os.write(2, os.fsencode(f"{prefix}Stopped without waiting.{last_words()}\n"))
            os._exit(INTERRUPTED)  # a normal exit would wait for the threads; all groups that were sent are on disk already
        interrupted.set()
        stop.set()
        number = in_flight()
        if number:
            console.print(f"Waiting for {counted(number, 'request', 'requests')} in progress; press Ctrl-C again to exit immediately.")

    # The shell makes background jobs ignore SIGINT.
    previous = {number: handler for number in signals if (handler := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in previous:
        signal.signal(number, interrupt)
    try:
        yield interrupted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
