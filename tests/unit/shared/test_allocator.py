"""The worker's allocator: what large pictures took is given back."""

import subprocess
import sys

_BUFFERS = """
import psutil
{configure}
begin = psutil.Process().memory_info().rss
bytearray(b"x") * (30 << 20)  # one large picture
large = [(bytearray(b"x") * (10 << 20), bytearray(b"x") * 60_000) for _ in range(10)]
kept = [small for _, small in large]
del large
print((psutil.Process().memory_info().rss - begin) >> 20)
"""


def kept_mb(configure: str) -> int:
    """Make and free ten buffers of 10 MB, behind each a small thing that stays; give what is not given back."""
    ended = subprocess.run(
        [sys.executable, "-c", _BUFFERS.format(configure=configure)], check=True, capture_output=True, text=True
    )
    return int(ended.stdout)


def test_small_things_that_stay_do_not_keep_the_pages_of_large_ones() -> None:
    by_default = kept_mb("")  # 100, or less where the kernel takes idle pages away by itself
    assert by_default > 10  # else this would show nothing
    assert kept_mb("from shared import allocator; allocator.configure(allocator.WORKER)") < by_default / 4
