"""Interleaved measurements: the order of the subjects, and which samples are kept."""

import pytest

from scripts.bench.timing import interleave, median, seconds


def test_every_subject_runs_once_per_round_and_the_order_rotates() -> None:
    calls: list[str] = []
    subjects = {name: (lambda name=name: calls.append(name) or len(calls)) for name in "abc"}  # type: ignore[func-returns-value]
    interleave(subjects, 3, warmups=0)
    assert ["".join(calls[first : first + 3]) for first in (0, 3, 6)] == ["abc", "bca", "cab"]


def test_samples_of_warm_up_rounds_are_discarded() -> None:
    calls: list[int] = []

    def run() -> int:
        calls.append(1)
        return len(calls)

    assert interleave({"only": run}, 2, warmups=2) == {"only": [3, 4]}


def test_a_measurement_without_a_round_raises_an_error() -> None:
    with pytest.raises(ValueError, match="round"):
        interleave({"a": lambda: 1}, 0)


def test_the_median_ignores_one_outlier() -> None:
    assert median([1.0, 2.0, 900.0]) == 2.0


def test_seconds_are_not_negative() -> None:
    assert seconds(lambda: None) >= 0
