"""A source that nobody may come to."""

from collections.abc import Iterator

import pytest

from tests.support.image_sources import SourceServer, ok_response, respond_with


@pytest.fixture
def canary() -> Iterator[SourceServer]:
    """Listen where nobody may come."""
    with SourceServer(respond_with(ok_response(b"canary")), "127.0.0.1") as source:
        yield source
