"""Time limits of a fetch."""

import pytest

from shared.errors import UpstreamTimeout
from shared.fetch import deadline
from shared.fetch.deadline import Deadline


@pytest.mark.parametrize("left_s", [1e-3 - 1e-6, 4e-7, 1e-12, 0.0, -1.0])
def test_a_phase_with_less_than_a_millisecond_left_has_ended(monkeypatch: pytest.MonkeyPatch, left_s: float) -> None:
    monkeypatch.setattr(deadline, "monotonic", lambda: 0.0)
    limits = Deadline(10.0)
    limits.start_phase(5.0)
    assert limits.remaining_s() == 5.0
    limits.start_phase()
    assert limits.remaining_s() == 10.0
    limits.start_phase(left_s)
    with pytest.raises(UpstreamTimeout):
        limits.remaining_s()
