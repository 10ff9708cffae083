"""Fixtures of the integration tests."""

from collections.abc import Iterator

import pytest

from tests.integration import http


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    """Close what the test's web clients opened."""
    yield
    while http.opened:
        http.opened.pop().close()
