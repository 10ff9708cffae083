"""Helpers of the fetch tests: fetchers that may reach the sources of the tests and no other address."""

from typing import Any

import pytest

from shared.errors import ShelfsightError
from shared.fetch.addresses import Address
from shared.fetch.client import Fetcher, FetchResult
from shared.settings import Fetch
from tests.support.image_sources import PERMITTED_ADDRESS, ConnectionHandler, SourceServer, respond_with

MAX = 100_000
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PATIENT: dict[str, Any] = {"resolve_s": 60, "connect_s": 60, "first_byte_s": 60, "whole_s": 120}
"""Long time limits, so that on a slow machine, too, only the limit that a test sets ends the fetch."""
PERMITTED: dict[str, Any] = {"permitted_networks": [PERMITTED_ADDRESS], **PATIENT}


def resolve_nothing(name: str) -> list[Address]:
    """Fail to resolve any name."""
    raise OSError(name)


def fetcher(**rules: Any) -> Fetcher:
    return Fetcher(Fetch(**{**PERMITTED, **rules}), resolve_nothing)


def fetch(url: str, **rules: Any) -> FetchResult:
    return fetcher(**rules).fetch(url, max_bytes=MAX)


def fetch_error(behaviour: ConnectionHandler | bytes, **rules: Any) -> ShelfsightError:
    """Return the error that fetching from a source with this behaviour raises."""
    with SourceServer(respond_with(behaviour) if isinstance(behaviour, bytes) else behaviour) as source:
        with pytest.raises(ShelfsightError) as failed:
            fetch(f"{source.url}/", **rules)
        source.wait_for(1)
    return failed.value
