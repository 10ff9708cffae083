"""How much goes on at once: this service is no cannon, whoever loads it."""

import threading
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from shared.errors import Busy

_PATIENCE_S = 2


class Gate:
    """Counts by key what is going on in this process. Nobody waits here: who comes too many is told to come back. Of many threads."""

    def __init__(self) -> None:
        """Nothing goes on."""
        self._lock = threading.Lock()
        self._inside: Counter[Hashable] = Counter()

    @contextmanager
    def enter(self, *keys: Hashable, at_most: int) -> Iterator[None]:
        """Be inside under each of these keys.

        :raises Busy: under one of them ``at_most`` are inside already.
        """
        with self._lock:
            if any(self._inside[key] >= at_most for key in keys):
                raise Busy("As much is being fetched as may be at once, in all or from this source.", retry_after=_PATIENCE_S)
            self._inside.update(keys)
        try:
            yield
        finally:
            with self._lock:
                self._inside.subtract(keys)
                self._inside = +self._inside  # forget the zeros: keys are other people's
