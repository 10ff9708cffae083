"""Answers about inspections as they went out, kept for a moment: what many ask for costs neither the database nor a rendering."""

import hashlib
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cachetools import TTLCache
from flask import Response, request

_KEPT_S: Final = 5.0
_KEPT_BYTES: Final = 16 * 1024 * 1024
_AROUND: Final = 16 * 1024
"""Bytes that a kept answer takes beside its body, at most: what was asked has a URL in it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A body, and until when (``time.monotonic``) it is what a new look at the source would not be asked for."""

    body: bytes
    content_type: str
    etag: str
    fresh_until: float

    def response(self) -> Response:
        """Make the response to this request."""
        headers = {"Content-Type": self.content_type, "ETag": self.etag}
        if request.method not in {"GET", "HEAD"}:  # to a POST a cache gives nothing it has, and who asks again wants to know again
            return Response(self.body, headers=headers)
        left = int(self.fresh_until - time.monotonic())
        headers |= {"Cache-Control": f"private, max-age={left}" if left > 0 else "private, no-cache", "Vary": "Accept"}
        if request.if_none_match.contains_weak(self.etag.strip('"')):
            return Response(status=304, headers=headers)
        return Response(self.body, headers=headers)


def make(body: bytes, content_type: str, fresh_s: float) -> Answer:
    """Make an answer that stays fresh for so many seconds."""
    return Answer(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"', time.monotonic() + fresh_s)


class Answers:
    """Answers of this process by what was asked, for a few seconds and while they are fresh; for several threads."""

    def __init__(self) -> None:
        """Begin without any."""
        self._kept: TTLCache[tuple[str, ...], Answer] = TTLCache(_KEPT_BYTES, _KEPT_S, getsizeof=lambda answer: len(answer.body) + _AROUND)
        self._lock = threading.Lock()

    def get(self, asked: tuple[str, ...]) -> Answer | None:
        """Give one that is still fresh."""
        with self._lock:
            found = self._kept.get(asked)
        return found if found is not None and time.monotonic() < found.fresh_until else None

    def keep(self, asked: tuple[str, ...], answer: Answer) -> None:
        """Keep one."""
        with self._lock, suppress(ValueError):  # it would take all the room
            self._kept[asked] = answer
