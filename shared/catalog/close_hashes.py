"""Finds the stored perceptual hashes that are close to one hash, those at each distance when they are needed.

The index of bands (``shared.perceptual_hashes``) also contains the whole hashes, so they are compared without reading a document.
If ``n[i] - 1`` is the number of bits up to which the values of the band ``i`` have been looked up, then all hashes within
``n[0] + n[1] + n[2] + n[3] - 1`` bits have been found: others differ in at least ``n[i]`` bits of each band. So a step, which looks
up the values of one band that differ in one bit more, extends the search by one bit, whichever band it takes.

Usually a step has few entries, and several are read at once. If a camera always shows the same shelf, a large share of its images
have nearly the same value of a band. Then the steps with the fewest entries are taken, which are those of the bands in which the
image differs from most others. If it differs in none, the distances 1 and 2 are found without steps, because there are only 2,080
such hashes and all of them can be looked up.
"""

from collections import Counter
from itertools import chain, combinations
from typing import Final

from shared import perceptual_hashes
from shared.perceptual_hashes import BANDS
from shared.storage.mongo import Db

MAX_ENTRIES: Final = 40_000
"""The number of index entries that one search reads. More are left out, and the search is incomplete."""
_AT_ONCE: Final = (1000, 4000)
"""The number of entries that are read for the first step of all bands at once, and for the second. There are about 60 and 1,000 in a
million images whose hashes are random."""
_IN_STEP: Final = 1000
_GROWTH: Final = 8
"""A step that has more entries than expected is repeated with a larger limit when no other step has fewer."""
_FREQUENT: Final = 100
"""The number of entries in one read from which on a hash is frequent. It is left out of further reads."""
_LISTED: Final = 2
"""The greatest distance of which all possible hashes can be looked up."""
_HAS_HASH: Final = {"$gt": ""}


class CloseHashes:
    """The stored hashes within a distance of one hash. Errors of the driver pass."""

    def __init__(self, db: Db, phash: str, max_distance: int) -> None:
        self._db, self._phash, self._max_distance = db, phash, max_distance
        self._own, self._bands = int(phash, 16), perceptual_hashes.bands(phash)
        self._steps = [0] * BANDS
        self._least = [0] * BANDS  # the next step of each band has at least so many entries
        self._is_dense = False  # the steps of all bands have too many entries to be read at once
        self._seen = {phash}
        self._frequent = {phash}
        self._found: dict[int, list[str]] = {}
        self._entries_left = MAX_ENTRIES
        self.is_complete = True
        """False if hashes may be missing at one of the distances for which ``find`` was called."""

    def find(self, distance: int) -> list[str]:
        """Return the hashes at exactly this distance, in ascending order. Some of them may not be stored."""
        if distance == 0:
            return [self._phash]
        while sum(self._steps) <= distance and not self._is_dense and self._steps[0] < len(_AT_ONCE):
            self._read_together()
        if sum(self._steps) <= distance <= _LISTED:
            return self._list(distance)
        while sum(self._steps) <= distance and self._entries_left > 0:
            self._take_step()
        self.is_complete = self.is_complete and sum(self._steps) > distance
        return sorted(self._found.get(distance, ()))

    def _list(self, distance: int) -> list[str]:
        return sorted(f"{self._own ^ sum(1 << bit for bit in bits):016x}" for bits in combinations(range(64), distance))

    def _read_together(self) -> None:
        """Take the next step of as many bands as the greatest distance needs, unless they have too many entries together."""
        bits = self._steps[0]
        bands = range(min(BANDS, self._max_distance - BANDS * bits + 1))
        values = list(chain.from_iterable(perceptual_hashes.neighbours(self._bands[band], bits) for band in bands))
        before = self._entries_left
        if self._read(values, _AT_ONCE[bits]):
            for band in bands:
                self._steps[band] += 1
                self._least[band] = (before - self._entries_left) // len(bands)
        else:
            self._is_dense = True

    def _take_step(self) -> None:
        """Take the step of one band that seems to have the fewest entries, unless it turns out to have more than another one."""
        band = min(range(BANDS), key=lambda band: (self._least[band], self._steps[band]))
        limit = max(_IN_STEP, _GROWTH * self._least[band])
        before = self._entries_left
        if self._read(perceptual_hashes.neighbours(self._bands[band], self._steps[band]), limit):
            self._steps[band] += 1
            self._least[band] = before - self._entries_left  # the next step has more values
        else:
            self._least[band] = limit

    def _read(self, values: list[int], limit: int) -> bool:
        """Read the hashes with these values of a band, and return whether there are no more than ``limit`` entries left."""
        while (limit := min(limit, self._entries_left)) > 0:
            query = {"phash_bands": {"$in": values}, "phash": _HAS_HASH | {"$nin": sorted(self._frequent)}}
            cursor = self._db.images.find(query, {"_id": 0, "phash": 1}, hint="phash_bands", limit=limit, batch_size=limit)
            rows = Counter(row["phash"] for row in cursor)
            number = rows.total()
            self._entries_left -= number
            self._add(rows.keys() - self._seen)
            if number < limit:
                return True
            frequent = {phash: count for phash, count in rows.items() if count >= _FREQUENT}
            self._frequent.update(frequent)
            if sum(frequent.values()) < number / 2:
                break
        return False

    def _add(self, hashes: set[str]) -> None:
        self._seen |= hashes
        for phash in hashes:
            self._found.setdefault((int(phash, 16) ^ self._own).bit_count(), []).append(phash)
