"""Tests that a long listing is read in parts, each entry once."""

from collections.abc import Iterator

import pytest

from worker.sweep.listing import Listing

NO_TIME = 0.0
NO_LIMIT = float("inf")


class Numbers:
    """A listing of numbers that counts how often it was started and how many numbers were read."""

    def __init__(self, count: int) -> None:
        self.count, self.starts, self.read = count, 0, 0

    def __call__(self) -> Iterator[int]:
        self.starts += 1
        for number in range(self.count):
            self.read += 1
            yield number


def read_part(listing: Listing[int], until: float = NO_TIME) -> list[int]:
    return [number for chunk in listing.chunks(until) for number in chunk]


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 64, 100])
def test_parts_continue_where_the_last_one_stopped_until_the_end(count: int) -> None:
    numbers = Numbers(count)
    listing = Listing(numbers)
    seen = read_part(listing)
    while listing.is_unfinished:
        assert numbers.read == len(seen)
        seen += read_part(listing)
    assert seen == list(range(count))
    assert numbers.starts == 1
    assert read_part(listing, NO_LIMIT) == list(range(count))
    assert numbers.starts == 2


def test_without_a_time_limit_the_whole_listing_is_read() -> None:
    listing = Listing(Numbers(1000))
    assert read_part(listing, NO_LIMIT) == list(range(1000))
    assert not listing.is_unfinished


def test_after_an_error_of_the_caller_the_next_part_follows() -> None:
    listing = Listing(Numbers(100))
    for _ in listing.chunks(NO_LIMIT):
        break  # as an error does
    assert read_part(listing, NO_LIMIT) == list(range(32, 100))


def test_after_an_error_of_the_listing_it_starts_again() -> None:
    starts = iter([True, False])

    def start() -> Iterator[int]:
        yield from range(40)
        if next(starts):
            raise RuntimeError

    listing = Listing(start)
    with pytest.raises(RuntimeError):
        read_part(listing, NO_LIMIT)
    assert read_part(listing, NO_LIMIT) == list(range(40))
