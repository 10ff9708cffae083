"""Compute the SHA-256 digests of the files of an upload in another thread, while the upload is still being parsed.

A file is hashed soon after it has been decoded, when it is probably still in the processor's cache. The request thread
helps when it has parsed the upload.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, Self

_MIN_BYTES: Final = 1 << 20
"""The number of bytes above which another thread is used."""
_Submit = Callable[[Callable[[], None]], Future[None]]


class FileDigests:
    """The digests of the files of one upload. Except for the thread that it uses itself, it is not thread-safe.

    The other thread stops when the context ends.
    """

    def __init__(self, submit: _Submit) -> None:
        """Create an empty collection.

        :param submit: runs a function in another thread. At most one such call is running at a time.
        """
        self._submit = submit
        self._files: dict[int, bytes] = {}  # by id; keeping them ensures that no other file gets the same id
        self._waiting: deque[bytes] = deque()
        self._found: dict[int, str] = {}
        self._thread: Future[None] | None = None
        self._bytes = 0

    def add(self, file: bytes) -> None:
        """Begin to compute the digest of a file."""
        self._files[id(file)] = file
        self._waiting.append(file)
        self._bytes += len(file)
        if self._bytes > _MIN_BYTES and (self._thread is None or self._thread.done()):
            self._thread = self._submit(self._hash_first)

    def clear(self) -> None:
        """Forget all files."""
        self._waiting.clear()
        self._wait()
        self._files.clear()
        self._found.clear()

    def compute(self, files: Sequence[bytes]) -> list[str]:
        """Return the digest of each file, in hexadecimal. The files need not have been added before."""
        for file in files:
            if id(file) not in self._files:
                self.add(file)
        while self._waiting:
            try:
                self._hash(self._waiting.pop())
            except IndexError:  # the other thread has just taken the last file
                break
        self._wait()
        return [self._found[id(file)] for file in files]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.clear()

    def _wait(self) -> None:
        """Wait for the other thread. If it has not begun, because all threads are busy, nothing is left for it to do."""
        if self._thread is not None and not self._thread.cancel():
            self._thread.result()

    def _hash_first(self) -> None:
        while self._waiting:
            try:
                file = self._waiting.popleft()
            except IndexError:  # the request thread has just taken the last file
                return
            self._hash(file)

    def _hash(self, file: bytes) -> None:
        self._found[id(file)] = hashlib.sha256(file).hexdigest()
