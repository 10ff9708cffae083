"""glibc's allocator, set so that the memory of a process that handles pictures for weeks stays flat."""

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_MAPPED_FROM: Final = 8 << 20
"""Above the buffers of a picture of 1280x960, whose pages would else be asked for and given back ten times an image."""
_KEPT: Final = 64 << 20
_ARENAS: Final = 2


def settle() -> None:
    """Give what a large picture took back to the system; bound the pools that threads keep to themselves.

    By default glibc raises its threshold for mapping to the largest buffer that was ever freed, up to 32 MB, so that after one
    large picture the next ones lie in the heap, where whatever small thing stands behind them keeps their pages; and it makes eight
    arenas a core. So the least that a pool child held rose from 984 to 1,010 MB over 700 pictures (mallopt(3)). A threshold below the
    usual buffers, or a heap that is trimmed to 128 KB after each, costs a fifth of the worker's rate in page faults.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    for option, value in ((_M_MMAP_THRESHOLD, _MAPPED_FROM), (_M_TRIM_THRESHOLD, _KEPT), (_M_ARENA_MAX, _ARENAS)):
        mallopt(option, value)
