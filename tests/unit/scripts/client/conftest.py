"""Fixtures of the client's tests."""

from collections.abc import Iterator

import pytest

from tests.unit.scripts.client.scripted_service import ScriptedService, serving


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    """Run a service whose responses a test can script."""
    with serving() as running:
        yield running
