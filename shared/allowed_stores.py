"""The set of stores in which rights count. Queries are limited to it."""

from collections.abc import Iterable
from typing import Any, Final

AllowedStores = frozenset[str] | None
"""The names of the stores in which rights count. None means all stores, also those that do not exist yet."""

ALL_STORES: Final = "*"
"""The element that stands for all stores in the list of stores of a user or a key."""


def intersect_stores(first: AllowedStores, second: AllowedStores) -> AllowedStores:
    """Return the stores that are in both sets."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


def stores_from_list(names: Iterable[str]) -> AllowedStores:
    """Return the stores that a stored list names; the element ``*`` stands for all stores."""
    stores = frozenset(names)
    return None if ALL_STORES in stores else stores


def stores_to_list(stores: AllowedStores) -> list[str]:
    """Return the list that is stored and shown for a set of stores."""
    return [ALL_STORES] if stores is None else sorted(stores)


def within_query(stores: AllowedStores) -> dict[str, Any]:
    """Return the query for the documents all of whose ``stores`` are in a set."""
    return {} if stores is None else {"stores": {"$not": {"$elemMatch": {"$nin": sorted(stores)}}}}
