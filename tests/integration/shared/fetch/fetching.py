"""What the tests of fetching share: a fetcher that may reach the test's own sources, and nothing else."""

from typing import Any

import pytest

from shared.errors import ShelfsightError
from shared.fetch.addresses import Address
from shared.fetch.client import Fetched, Fetcher
from shared.settings import Fetch
from tests.support.image_sources import PERMITTED_ADDRESS, ConnectionHandler, SourceServer, respond_with

MAX = 100_000
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PATIENT: dict[str, Any] = {"resolve_s": 60, "connect_s": 60, "first_byte_s": 60, "whole_s": 120}
"""So that the one limit that a test sets is what ends it, on a slow machine too."""
PERMITTED: dict[str, Any] = {"permitted_networks": [PERMITTED_ADDRESS], **PATIENT}


def nobody(name: str) -> list[Address]:
    """Resolve nothing."""
    raise OSError(name)


def fetcher(**rules: Any) -> Fetcher:
    return Fetcher(Fetch(**{**PERMITTED, **rules}), nobody)


def fetch(url: str, **rules: Any) -> Fetched:
    return fetcher(**rules).fetch(url, max_bytes=MAX)


def fails(behaviour: ConnectionHandler | bytes, **rules: Any) -> ShelfsightError:
    """Give the error that a source's behaviour ends with."""
    with SourceServer(respond_with(behaviour) if isinstance(behaviour, bytes) else behaviour) as source:
        with pytest.raises(ShelfsightError) as failed:
            fetch(f"{source.url}/", **rules)
        source.wait_for(1)
    return failed.value


