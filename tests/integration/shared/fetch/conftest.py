"""A source that no fetch may reach."""

from collections.abc import Iterator

import pytest

from tests.support.image_sources import Source, ok, says


@pytest.fixture
def canary() -> Iterator[Source]:
    """A source on an address that is not permitted; tests check that it receives no connection."""
    with Source(says(ok(b"canary")), "127.0.0.1") as source:
        yield source
