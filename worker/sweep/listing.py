"""Read a long listing of the blob store in several calls, each with a time limit."""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, Generic, TypeVar

from shared.storage.blobs import BlobStat, BlobStore

T = TypeVar("T")
_CHUNK: Final = 32


class Listing(Generic[T]):
    """Reads a listing that can be too long for one tick of the sweep. The next tick continues where this one stopped."""

    def __init__(self, start: Callable[[], Iterator[T]]) -> None:
        """Prepare a listing.

        :param start: starts the listing. It is called again after the listing has ended or has raised an error.
        """
        self._start = start
        self._entries: Iterator[T] | None = None

    @property
    def is_unfinished(self) -> bool:
        """Whether the last call of ``chunks`` stopped before the end of the listing."""
        return self._entries is not None

    def chunks(self, until: float) -> Iterator[list[T]]:
        """Yield the next entries in small lists, until the time limit or the end of the listing.

        At least one list is yielded if there is an entry. If the caller stops earlier, the next call continues after
        the list that was yielded last.

        :param until: time limit, in ``time.monotonic`` seconds.
        """
        entries = self._entries or self._start()
        self._entries = None  # after an error, the next call starts again
        while True:
            chunk = list(islice(entries, _CHUNK))
            if len(chunk) < _CHUNK:
                if chunk:
                    yield chunk
                return
            self._entries = entries
            yield chunk
            if time.monotonic() > until:
                return
            self._entries = None


def delete_old(blobs: BlobStore, listing: Listing[BlobStat], age_s: float, until: float) -> None:
    """Delete the blobs in the next part of a listing that were written more than ``age_s`` seconds ago.

    :param until: time limit, in ``time.monotonic`` seconds.
    """
    for chunk in listing.chunks(until):
        for blob in chunk:
            if time.time() - blob.modified > age_s:
                blobs.delete(blob.key)
