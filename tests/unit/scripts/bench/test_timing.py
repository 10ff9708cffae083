"""Interleaving is fair and keeps what it is told to keep."""

import pytest

from scripts.bench.timing import interleave, median, seconds


def test_every_subject_has_its_turn_in_every_round_and_the_order_turns() -> None:
    calls: list[str] = []
    subjects = {name: (lambda name=name: calls.append(name) or len(calls)) for name in "abc"}  # type: ignore[func-returns-value]
    interleave(subjects, 3, warmups=0)
    assert ["".join(calls[at : at + 3]) for at in (0, 3, 6)] == ["abc", "bca", "cab"]


def test_warm_up_rounds_are_run_and_not_kept() -> None:
    calls: list[int] = []

    def run() -> int:
        calls.append(1)
        return len(calls)

    assert interleave({"only": run}, 2, warmups=2) == {"only": [3, 4]}


def test_a_measurement_without_a_round_is_refused() -> None:
    with pytest.raises(ValueError, match="round"):
        interleave({"a": lambda: 1}, 0)


def test_median_ignores_one_wild_sample() -> None:
    assert median([1.0, 2.0, 900.0]) == 2.0


def test_seconds_are_positive() -> None:
    assert seconds(lambda: None) >= 0
