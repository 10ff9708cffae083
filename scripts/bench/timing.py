"""Interleaved measuring: every subject has its turn in every round, so that a noisy moment hits all of them."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def interleave(subjects: Mapping[str, Callable[[], T]], rounds: int, *, warmups: int = 1) -> dict[str, list[T]]:
    """Call every subject once a round and keep what it returns.

    The order turns by one each round, so that no subject always follows the same one. Warm-up rounds are not kept.

    :raises ValueError: fewer than one round.
    """
    if rounds < 1:
        raise ValueError("A measurement needs a round.")
    names = list(subjects)
    kept: dict[str, list[T]] = {name: [] for name in names}
    for number in range(-warmups, rounds):
        turn = number % len(names) if names else 0
        for name in names[turn:] + names[:turn]:
            sample = subjects[name]()
            if number >= 0:
                kept[name].append(sample)
    return kept


def median(values: Iterable[float]) -> float:
    """Give the median."""
    return statistics.median(values)


def seconds(call: Callable[[], object]) -> float:
    """Time one call, in seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
