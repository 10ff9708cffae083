"""The bytes of all bodies in flight are limited, and a single body is always admitted."""

import pytest

from shared.errors import Busy
from web.http.body_limits import BodyBudget


def test_a_single_body_is_always_admitted_at_once_or_step_by_step() -> None:
    budget = BodyBudget(100)
    for steps in ([150], [60, 60, 60]):
        with budget.open_reservation("192.0.2.1") as reserve:
            for step in steps:
                reserve(step)


def test_a_second_body_is_refused_until_the_first_is_released() -> None:
    budget = BodyBudget(100)
    with budget.open_reservation("192.0.2.1") as first:
        first(60)
        with budget.open_reservation("192.0.2.1") as second:
            second(40)
            with pytest.raises(Busy):
                second(1)
            with pytest.raises(Busy):
                first(1)
    with budget.open_reservation("192.0.2.1") as third:
        third(100)
