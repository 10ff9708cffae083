"""Compares perceptual hashes, and splits them into bands, by which an index finds hashes that differ in few bits.

A hash has 64 bits as 16 hexadecimal digits. Its four bands are its quarters, from the most significant bits on. The value of a
band is ``number << 16 | bits``, where ``number`` is 0 to 3, so values of different bands are different.

If two hashes differ in few bits, then at least one of their bands is nearly the same (multi-index hashing; Norouzi, Punjani and
Fleet 2012). Let ``d = 4 * r + a`` with ``a < 4``. If two hashes differ in at most ``d`` bits, then one of the first ``a + 1``
bands differs in at most ``r`` bits, or one of the other bands in at most ``r - 1`` bits. Otherwise, the hashes would differ in
at least ``(a + 1) * (r + 1) + (3 - a) * r = d + 1`` bits.
"""

from functools import cache
from itertools import combinations
from typing import Final

BANDS: Final = 4
BAND_BITS: Final = 16


def bands(phash: str) -> list[int]:
    """Return the values of the four bands of a hash."""
    return [number << BAND_BITS | int(phash[4 * number : 4 * number + 4], 16) for number in range(BANDS)]


def distance(first: str, second: str) -> int:
    """Return the number of bits, 0 to 64, in which two hashes differ."""
    return (int(first, 16) ^ int(second, 16)).bit_count()


def neighbours(band: int, bits: int) -> list[int]:
    """Return the values of the same band that differ in exactly ``bits`` bits, in ascending order."""
    return sorted(band ^ mask for mask in _masks(bits))


def values_to_search(phash: str, max_distance: int) -> list[list[int]]:
    """Return the values of which each hash within ``max_distance`` bits of ``phash`` has at least one.

    :returns: lists of values. Those in the list with the index ``n`` differ from a band of ``phash`` in exactly ``n`` bits.
    """
    radius, rest = divmod(max_distance, BANDS)
    own = bands(phash)
    return [
        [value for number, band in enumerate(own) if bits < radius or number <= rest for value in neighbours(band, bits)]
        for bits in range(radius + 1)
    ]


@cache
def _masks(bits: int) -> tuple[int, ...]:
    return tuple(sum(1 << bit for bit in chosen) for chosen in combinations(range(BAND_BITS), bits))
