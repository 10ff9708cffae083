"""Keep the windows of rate limits from ending during a test."""

from types import SimpleNamespace

import pytest

from web.http import rate_limits


def freeze(monkeypatch: pytest.MonkeyPatch, now: float = 1_800_000_030.0) -> None:
    """Stop the clock of the rate limits, by default in the middle of a minute.

    Their windows begin at full minutes, so without this, a test that runs over the end of a minute has a part of its quota back.
    """
    monkeypatch.setattr(rate_limits, "time", SimpleNamespace(time=lambda: now))
