"""An administrator who reads the security log, and what the application writes to it."""

from collections.abc import Callable, Iterator

import pytest

from shared.storage.mongo import Db
from tests.support.accounts import bearer, make_token, make_user
from tests.support.security_log import SecurityLog, record_security_log
from tests.support.web_client import open_services


@pytest.fixture
def admin(db: Db) -> dict[str, str]:
    """Return the headers of an administrator of all stores. Unlike the use of a key, that of a session is no event."""
    return bearer(make_token(db, make_user(db, "ada", "admin")))


@pytest.fixture
def flush() -> Callable[[], None]:
    """Return a function that stores the counts of the application."""
    return lambda: open_services[-1].audit_log.flush()  # noqa: PLW0108 -- the application is created later


@pytest.fixture
def lines() -> Iterator[SecurityLog]:
    """Record what the application writes to the channels ``security`` and ``error``."""
    with record_security_log() as recorded:
        yield recorded
