"""Messages between parent and child over pipes: a length (8 bytes, little-endian) and that many bytes."""

import struct
from dataclasses import dataclass
from typing import IO, Any, Final

_HEADER: Final = struct.Struct("<Q")
EXIT_OUT_OF_MEMORY: Final = 71
"""Exit code of a child that reached its memory limit."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The child's reply to the request with this number: a result, or the error code of the image's fault."""

    number: int
    result: Any = None
    fault: str | None = None


def send(pipe: IO[bytes] | None, data: bytes) -> None:
    """Write one message."""
    assert pipe is not None  # noqa: S101 -- created with PIPE
    pipe.write(_HEADER.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes] | None) -> bytes:
    """Read one message.

    :raises EOFError: the other end is closed.
    """
    assert pipe is not None  # noqa: S101 -- created with PIPE
    (length,) = _HEADER.unpack(_read_exactly(pipe, _HEADER.size))
    return _read_exactly(pipe, length)


def _read_exactly(pipe: IO[bytes], length: int) -> bytes:
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data
