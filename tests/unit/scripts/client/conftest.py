"""Fixtures of the client's tests."""

from collections.abc import Iterator

import pytest

from tests.unit.scripts.client.scripted_service import Peer, serving


@pytest.fixture
def peer() -> Iterator[Peer]:
    """Run a service that can be told how to answer."""
    with serving() as server:
        yield server
