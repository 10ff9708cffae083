"""The allocator setting of the worker returns the memory of large images to the system."""

import subprocess
import sys

_BUFFERS = """
import psutil
{configure}
before = psutil.Process().memory_info().rss
bytearray(b"x") * (30 << 20)  # one large image
large = [(bytearray(b"x") * (10 << 20), bytearray(b"x") * 60_000) for _ in range(10)]
kept = [small for _, small in large]
del large
print((psutil.Process().memory_info().rss - before) >> 20)
"""


def kept_mb(configure: str) -> int:
    """Allocate and free ten buffers of 10 MB, each followed by a small one that stays; return the MB that are not returned."""
    process = subprocess.run(
        [sys.executable, "-c", _BUFFERS.format(configure=configure)], check=True, capture_output=True, text=True
    )
    return int(process.stdout)


def test_small_buffers_that_stay_do_not_keep_the_memory_of_large_ones() -> None:
    by_default = kept_mb("")  # 100, or less where the kernel reclaims idle pages by itself
    assert by_default > 10  # otherwise the test would show nothing
    assert kept_mb("from shared import allocator; allocator.configure(allocator.WORKER)") < by_default / 4
