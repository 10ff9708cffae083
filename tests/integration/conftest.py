"""Fixtures of the integration tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared import settings
from shared.storage.mongo import Db
from tests.support import accounts, web_client


@pytest.fixture
def web(db: Db, mongo: settings.Mongo, blobs_root: Path) -> FlaskClient:
    """Return a client of a web application with its own database and blob folder."""
    return web_client.make_client(mongo, blobs_root)


@pytest.fixture
def closed_web(db: Db, mongo: settings.Mongo, blobs_root: Path) -> FlaskClient:
    """Return a client of a web application whose requests need credentials, with its own database and blob folder."""
    return web_client.make_client(mongo, blobs_root, access=accounts.ACCESS)


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    """Close the services of the test's web clients."""
    yield
    while web_client.open_services:
        web_client.open_services.pop().close()
