"""A source that no fetch may reach."""

from collections.abc import Iterator

import pytest

from tests.support.image_sources import SourceServer, ok_response, respond_with


@pytest.fixture
def canary() -> Iterator[SourceServer]:
    """A source on an address that is not permitted; tests check that it receives no connection."""
    with SourceServer(respond_with(ok_response(b"canary")), "127.0.0.1") as source:
        yield source
