"""Sets of stores, and the lists in which they are stored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.allowed_stores import AllowedStores, intersect_stores, stores_from_list, stores_to_list

NAMES = ["a", "b", "c"]
STORES: st.SearchStrategy[AllowedStores] = st.none() | st.frozensets(st.sampled_from(NAMES))


def contains(stores: AllowedStores, name: str) -> bool:
    return stores is None or name in stores


@given(STORES, STORES)
def test_a_store_is_in_an_intersection_if_it_is_in_both_sets(first: AllowedStores, second: AllowedStores) -> None:
    both = intersect_stores(first, second)
    for name in (*NAMES, "a store that does not exist yet"):
        assert contains(both, name) is (contains(first, name) and contains(second, name))


@given(STORES)
def test_a_list_contains_the_names_or_an_asterisk_for_all(stores: AllowedStores) -> None:
    assert stores_from_list(stores_to_list(stores)) == stores


@pytest.mark.parametrize(("stored", "stores"), [(["*"], None), (["a", "*"], None), ([], frozenset()), (["b", "a", "b"], {"a", "b"})])
def test_an_asterisk_among_names_means_all_stores(stored: list[str], stores: AllowedStores) -> None:
    assert stores_from_list(stored) == stores
