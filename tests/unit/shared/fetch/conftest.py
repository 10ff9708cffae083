"""Audit events of the interpreter: they report every connection and every name lookup, however it is made."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

_recorded: list[str] | None = None


def _record(event: str, _: tuple[Any, ...]) -> None:
    if _recorded is not None and event.startswith("socket."):
        _recorded.append(event)


sys.addaudithook(_record)  # an audit hook cannot be removed; it records only while a test uses the fixture


@pytest.fixture
def socket_events() -> Iterator[list[str]]:
    """Return the list of the audit events of sockets; events are appended as they occur."""
    global _recorded  # noqa: PLW0603 -- the hook belongs to the whole interpreter
    _recorded = []
    yield _recorded
    _recorded = None
