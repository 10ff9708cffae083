"""The web front over real servers, and an inspector that each test controls."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared import settings
from shared.queue import wakeups
from shared.storage.mongo import Db
from tests.integration.web.inspections.inspection_requests import SHORT_WAIT
from tests.integration.web.inspections.scripted_inspector import Inspector
from tests.support.accounts import ACCESS
from tests.support.web_client import make_client
from web.http import rate_limits


@pytest.fixture(autouse=True)
def _raise_redis_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the timeouts: a Redis that is unavailable refuses connections at once in these tests."""
    monkeypatch.setattr(rate_limits, "_TIMEOUT_S", 30.0)
    monkeypatch.setattr(wakeups, "_TIMEOUT_S", 30.0)


@pytest.fixture
def web(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> FlaskClient:
    return make_client(mongo, blobs_root, redis_url, inspect=SHORT_WAIT)


@pytest.fixture
def closed_web(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> FlaskClient:
    return make_client(mongo, blobs_root, redis_url, inspect=SHORT_WAIT, access=ACCESS)


@pytest.fixture
def inspector(db: Db, blobs_root: Path) -> Inspector:
    return Inspector(db, blobs_root)
