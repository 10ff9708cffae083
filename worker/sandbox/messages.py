"""Messages that the sandbox's child process and its parent process exchange over pipes.

A message consists of a length field (8 bytes, little-endian) and the content. The length field holds the number of
bytes of the content.
"""

import struct
from dataclasses import dataclass
from typing import IO, Any, Final

_HEADER: Final = struct.Struct("<Q")
EXIT_OUT_OF_MEMORY: Final = 71
"""The exit code of a child that has reached its memory limit."""

READY: Final = b"ready"
"""The first message of a child. It has started, so from now on its end can be due to a request."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The child's reply to the request with this ``number``.

    ``fault`` is the error code if the image is faulty. Otherwise, ``fault`` is None, and ``result`` is the result.
    """

    number: int
    result: Any = None
    fault: str | None = None


def send(pipe: IO[bytes] | None, data: bytes) -> None:
    """Write one message to a pipe."""
    assert pipe is not None  # noqa: S101 -- for the type checker; the processes are connected by pipes
    pipe.write(_HEADER.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes] | None) -> bytes:
    """Read one message from a pipe, and return its content.

    :raises EOFError: when the other process has closed the pipe before a whole message arrived.
    """
    assert pipe is not None  # noqa: S101 -- for the type checker; the processes are connected by pipes
    (length,) = _HEADER.unpack(_read_exactly(pipe, _HEADER.size))
    return _read_exactly(pipe, length)


def wait_until_ready(pipe: IO[bytes] | None) -> bool:
    """Read the first message of a child. Return False if it is not ``READY``, or the child has closed the pipe."""
    assert pipe is not None  # noqa: S101 -- for the type checker; the processes are connected by pipes
    expected = _HEADER.pack(len(READY)) + READY
    return pipe.read(len(expected)) == expected


def _read_exactly(pipe: IO[bytes], length: int) -> bytes:
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data
