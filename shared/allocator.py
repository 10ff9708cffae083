"""Settings of glibc's allocator (mallopt(3)). Every process that handles images sets them once, before it allocates anything large."""

import ctypes
from dataclasses import dataclass
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_MAX_ARENAS: Final = 2


@dataclass(frozen=True, slots=True)
class MallocLimits:
    """Buffers from ``mmap_threshold`` bytes on are mapped on their own; the heap keeps up to ``trim_threshold`` free bytes."""

    mmap_threshold: int
    trim_threshold: int


WEB: Final = MallocLimits(mmap_threshold=32 << 20, trim_threshold=256 << 20)
"""Keeps the memory of one upload for the next.

By default each large buffer is mapped anew and zeroed page by page: thousands of page faults a request, a third of its CPU time (measured).
"""

WORKER: Final = MallocLimits(mmap_threshold=8 << 20, trim_threshold=64 << 20)
"""Returns the memory of a large image to the system. The threshold is above the buffers of an image of 1280x960.

By default glibc raises its threshold for mapping to the largest buffer that was ever freed, up to 32 MB. After one large image the next
ones are then allocated in the heap, where any small object behind them keeps their pages: the lowest memory use of a pool child rose from 984
to 1,010 MB over 700 images. A threshold below the usual buffers, or a heap that is trimmed to 128 KB after each, costs a fifth of the
worker's rate in page faults.
"""


def configure(limits: MallocLimits) -> None:
    """Apply the limits to this process, and two arenas instead of eight per core. Does nothing with another C library."""
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
