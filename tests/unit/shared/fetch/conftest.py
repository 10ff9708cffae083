"""What the interpreter itself says about the network: whoever connects or asks a name server is heard, however it is done."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

_heard: list[str] | None = None


def _hear(event: str, _: tuple[Any, ...]) -> None:
    if _heard is not None and event.startswith("socket."):
        _heard.append(event)


sys.addaudithook(_hear)  # stays for good, and is silent but for the tests that listen


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """Give the audit events of sockets, as they come."""
    global _heard  # noqa: PLW0603 -- there is but one interpreter to listen to
    _heard = []
    yield _heard
    _heard = None
