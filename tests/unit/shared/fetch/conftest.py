"""Audit events of the interpreter: they report every connection and every name lookup, however it is made."""

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

_recorded: list[str] | None = None
_other_threads: set[int | None] = set()
"""Threads of other tests, such as those of a client of MongoDB."""


def _record(event: str, _: tuple[Any, ...]) -> None:
    if _recorded is not None and event.startswith("socket.") and threading.get_ident() not in _other_threads:
        _recorded.append(event)


sys.addaudithook(_record)  # an audit hook cannot be removed; it records only while a test uses the fixture


@pytest.fixture
def socket_events() -> Iterator[list[str]]:
    """Return the list of the audit events of sockets in this thread and in threads that it starts, in their order."""
    global _recorded, _other_threads  # noqa: PLW0603 -- the hook belongs to the whole interpreter
    _other_threads = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
    _recorded = []
    yield _recorded
    _recorded = None
