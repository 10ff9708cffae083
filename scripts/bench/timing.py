"""Measure several functions (subjects) in rounds: each runs once per round, so a slow minute affects all of them."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def interleave(subjects: Mapping[str, Callable[[], T]], rounds: int, *, warmups: int = 1) -> dict[str, list[T]]:
    """Call every subject once per round, and return the samples of each subject by name.

    The order is rotated by one in each round, so that no subject always runs first. Before the measured rounds, there
    are ``warmups`` rounds, whose samples are discarded.

    :param subjects: functions to call, by name; each call returns one sample.
    :raises ValueError: when ``rounds`` is less than 1.
    """
    if rounds < 1:
        raise ValueError("A measurement needs at least one round.")
    names = list(subjects)
    samples: dict[str, list[T]] = {name: [] for name in names}
    for number in range(-warmups, rounds):
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            sample = subjects[name]()
            if number >= 0:
                samples[name].append(sample)
    return samples


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def seconds(call: Callable[[], object]) -> float:
    """Return the duration of one call in seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
