"""Fixtures of the integration tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared import settings
from shared.mongo import Db
from tests.integration import http


@pytest.fixture
def web(db: Db, mongo: settings.Mongo, blobs_root: Path) -> FlaskClient:
    """Give a client of the web application over a database and a folder of its own."""
    return http.client(mongo, blobs_root)


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    """Close what the test's web clients opened."""
    yield
    while http.opened:
        http.opened.pop().close()
