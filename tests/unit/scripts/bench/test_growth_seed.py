"""The stores of the seeded batches: a small database has nearly all of them, and one of them has a constant share of all batches."""

from scripts.bench import growth_seed
from scripts.bench.seed_database import PER_BATCH

_SMALLEST = 100_000 // PER_BATCH


def test_the_smallest_database_has_nearly_all_stores() -> None:
    stores = {store for number in range(_SMALLEST) for store in growth_seed._stores_of(number)}
    assert len(stores) > 0.99 * growth_seed.STORES


def test_the_measured_store_has_a_constant_share_of_the_batches() -> None:
    for numbers in (range(600), range(_SMALLEST), range(40_000)):
        own = sum(growth_seed.store_name(0) in growth_seed._stores_of(number) for number in numbers)
        assert 0.009 < own / len(numbers) < 0.012
