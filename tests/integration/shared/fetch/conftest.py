"""A source that nobody may come to."""

from collections.abc import Iterator

import pytest

from tests.support.image_sources import Source, ok, says


@pytest.fixture
def canary() -> Iterator[Source]:
    """Listen where nobody may come."""
    with Source(says(ok(b"canary")), "127.0.0.1") as source:
        yield source
