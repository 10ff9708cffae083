"""The page numbers that the browse benchmark measures."""

from scripts.bench.page_rates import pages_to_measure


def test_with_all_batches_they_are_the_pages_of_the_target() -> None:
    assert pages_to_measure(31_250, 31_250) == [1, 2600, 5200, 7800, 10400]


def test_with_fewer_batches_they_are_reduced_in_proportion() -> None:
    assert pages_to_measure(3_125, 3_125) == [1, 260, 520, 780, 1040]


def test_after_deletions_a_page_past_the_end_becomes_the_last_full_one() -> None:
    assert pages_to_measure(31_250, 29_688) == [1, 2600, 5200, 7800, 9896]
