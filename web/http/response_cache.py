"""Finished responses, cached in memory for seconds: a repeated request reads no database and renders nothing."""

import hashlib
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cachetools import TTLCache
from flask import Response, request

_MAX_AGE_S: Final = 5.0
_MAX_BYTES: Final = 16 * 1024 * 1024
_OVERHEAD_BYTES: Final = 16 * 1024
"""Memory of a cached response besides its body, at most: its key contains a URL."""


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """A response body, fresh until ``fresh_until`` (``time.monotonic``)."""

    body: bytes
    content_type: str
    etag: str
    fresh_until: float

    def response(self) -> Response:
        """Return the response to the current request; 304 if the client has it already."""
        headers = {"Content-Type": self.content_type, "ETag": self.etag}
        # Caches do not reuse responses to a POST, and a client that repeats one wants the current state.
        if request.method not in {"GET", "HEAD"}:
            return Response(self.body, headers=headers)
        max_age = int(self.fresh_until - time.monotonic())
        headers |= {
            "Cache-Control": f"private, max-age={max_age}" if max_age > 0 else "private, no-cache",
            "Vary": "Accept",
        }
        if request.if_none_match.contains_weak(self.etag.strip('"')):
            return Response(status=304, headers=headers)
        return Response(self.body, headers=headers)


def make_cached_response(body: bytes, content_type: str, fresh_s: float) -> CachedResponse:
    """Return a response that stays fresh for ``fresh_s`` seconds."""
    return CachedResponse(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"', time.monotonic() + fresh_s)


class ResponseCache:
    """Responses of this process by request, for a few seconds and while they are fresh. Thread-safe."""

    def __init__(self) -> None:
        self._responses: TTLCache[tuple[str, ...], CachedResponse] = TTLCache(
            _MAX_BYTES, _MAX_AGE_S, getsizeof=lambda response: len(response.body) + _OVERHEAD_BYTES
        )
        self._lock = threading.Lock()

    def get(self, key: tuple[str, ...]) -> CachedResponse | None:
        """Return the response with this key if it is still fresh."""
        with self._lock:
            response = self._responses.get(key)
        return response if response is not None and time.monotonic() < response.fresh_until else None

    def put(self, key: tuple[str, ...], response: CachedResponse) -> None:
        """Cache a response."""
        with self._lock, suppress(ValueError):  # raised for a response larger than the cache
            self._responses[key] = response
