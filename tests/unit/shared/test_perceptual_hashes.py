"""Perceptual hashes are split into bands so that a search for few values finds every close hash."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.perceptual_hashes import bands, distance, neighbours, values_to_search

HASHES = st.integers(0, 2**64 - 1)


def text(number: int) -> str:
    return f"{number:016x}"


def test_bands_contain_their_number_and_a_quarter_of_the_hash() -> None:
    assert bands("0123456789abcdef") == [0x00123, 0x14567, 0x289AB, 0x3CDEF]


@given(HASHES, st.sets(st.integers(0, 63)))
def test_the_distance_is_the_number_of_different_bits(number: int, flipped: set[int]) -> None:
    assert distance(text(number), text(number ^ sum(1 << bit for bit in flipped))) == len(flipped)


@pytest.mark.parametrize("bits", range(4))
def test_neighbours_are_all_values_of_the_same_band_with_so_many_other_bits(bits: int) -> None:
    (_, _, band, _) = bands("0123456789abcdef")
    found = neighbours(band, bits)
    assert len(set(found)) == math.comb(16, bits)
    assert {(value >> 16, (value ^ band).bit_count()) for value in found} == {(2, bits)}


@given(HASHES, st.integers(0, 10), st.data())
def test_a_hash_within_the_distance_has_one_of_the_values_to_search(number: int, max_distance: int, data: st.DataObject) -> None:
    flipped = data.draw(st.sets(st.integers(0, 63), max_size=max_distance))
    close = text(number ^ sum(1 << bit for bit in flipped))
    values = {value for ring in values_to_search(text(number), max_distance) for value in ring}
    assert values & set(bands(close))


def test_the_number_of_values_to_search_is_small() -> None:
    assert [sum(map(len, values_to_search("0" * 16, limit))) for limit in (0, 3, 6, 10)] == [1, 4, 3 * 17 + 1, 3 * 137 + 17]
