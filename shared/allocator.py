"""Settings for glibc's memory allocator (mallopt(3)), and buffers that are not cleared.

Every process that handles images applies the settings once, before it allocates any large buffer.
"""

import ctypes
import io
from dataclasses import dataclass
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_MAX_ARENAS: Final = 2
_new_bytes: Final = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)
"""Creates ``bytes`` of a given size. With None as the first argument, the content is not initialized."""


@dataclass(frozen=True, slots=True)
class MallocLimits:
    """Thresholds of the allocator, in bytes.

    A buffer of at least ``mmap_threshold`` bytes gets its own memory mapping. The heap keeps up to ``trim_threshold``
    bytes of free memory.
    """

    mmap_threshold: int
    trim_threshold: int


WEB: Final = MallocLimits(mmap_threshold=32 << 20, trim_threshold=256 << 20)
"""Limits for a web process, which reuses the memory of one upload for the next.

By default, each large buffer is mapped anew and zeroed page by page. This causes thousands of page faults per request
and takes a third of its CPU time (measured).
"""

WORKER: Final = MallocLimits(mmap_threshold=8 << 20, trim_threshold=64 << 20)
"""Limits for a worker, which returns the memory of a large image to the operating system.

The mapping threshold is larger than any buffer for an image of 1280x960 pixels. By default, glibc raises this threshold
to the size of the largest buffer that was ever freed, up to 32 MB. After one large image, the buffers of the following
large images are then allocated in the heap. A small object that is allocated after such a buffer prevents the release
of the buffer's pages, so the lowest memory use of a pool child rose from 984 to 1,010 MB over 700 images. Two other
settings reduce the worker's throughput by a fifth because of page faults: a threshold below the usual buffer sizes, and
trimming the heap to 128 KB after each image.
"""


def configure(limits: MallocLimits) -> None:
    """Apply the limits to this process, and use two arenas instead of glibc's default, eight per core.

    With a C library other than glibc, the call has no effect.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    options = (
        (_M_MMAP_THRESHOLD, limits.mmap_threshold),
        (_M_TRIM_THRESHOLD, limits.trim_threshold),
        (_M_ARENA_MAX, _MAX_ARENAS),
    )
    for option, value in options:
        mallopt(option, value)


def uncleared_buffer(size: int) -> io.BytesIO:
    """Return a stream whose buffer has ``size`` bytes with arbitrary content, and whose position is at the beginning.

    To fill 8.6 MB with zeros before they are received takes as long as to receive them (measured). ``getvalue`` returns
    the buffer without copying it.
    """
    return io.BytesIO(_new_bytes(None, size))
