"""Cache responses in memory for a few seconds, so that a repeated request needs no database query and no rendering."""

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
"""The maximum memory in bytes that a cached response needs in addition to its body. The key can contain a long URL."""


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """A cached response. It is fresh until ``time.monotonic()`` reaches ``fresh_until``.

    ``shown_ids`` are the ids of what the response shows. They are not part of the response.
    """

    body: bytes
    content_type: str
    etag: str
    fresh_until: float
    shown_ids: tuple[str, ...] = ()

    def response(self) -> Response:
        """Return the response for the current request: status 304 if the client already has the body, else the body."""
        headers = {"Content-Type": self.content_type, "ETag": self.etag}
        # HTTP caches do not reuse responses to POST requests, and a client that repeats a POST request needs the current
        # state. So the response has no Cache-Control header, and it is never 304.
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


def make_cached_response(body: bytes, content_type: str, fresh_s: float, shown_ids: tuple[str, ...] = ()) -> CachedResponse:
    """Create a ``CachedResponse`` that is fresh for ``fresh_s`` seconds."""
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return CachedResponse(body, content_type, etag, time.monotonic() + fresh_s, shown_ids)


class ResponseCache:
    """Keeps responses in the memory of this process while they are fresh, which is a few seconds. Thread-safe."""

    def __init__(self) -> None:
        self._responses: TTLCache[tuple[str, ...], CachedResponse] = TTLCache(
            _MAX_BYTES, _MAX_AGE_S, getsizeof=lambda response: len(response.body) + _OVERHEAD_BYTES
        )
        self._lock = threading.Lock()

    def get(self, key: tuple[str, ...]) -> CachedResponse | None:
        """Return the response with this key, or None if there is none or it is no longer fresh."""
        with self._lock:
            response = self._responses.get(key)
        return response if response is not None and time.monotonic() < response.fresh_until else None

    def put(self, key: tuple[str, ...], response: CachedResponse) -> None:
        """Store a response under ``key``. A response that exceeds the maximum size of the cache is not stored."""
        with self._lock, suppress(ValueError):  # cachetools raises ValueError for a response larger than the cache
            self._responses[key] = response
