"""The web over real servers, and an inspector that does as it is told."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared import settings
from shared.queue import wakeups
from shared.storage.mongo import Db
from tests.integration.web.inspections.asking import IMPATIENT
from tests.integration.web.inspections.scripted_inspector import Inspector
from tests.support.web_client import make_client
from web.http import rate_limits


@pytest.fixture(autouse=True)
def _redis_may_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for it, as one that is away refuses at once in these tests."""
    monkeypatch.setattr(rate_limits, "_PATIENCE_S", 30.0)
    monkeypatch.setattr(wakeups, "_TIMEOUT_S", 30.0)


@pytest.fixture
def web(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> FlaskClient:
    return make_client(mongo, blobs_root, redis_url, inspect=IMPATIENT)


@pytest.fixture
def inspector(db: Db, blobs_root: Path) -> Inspector:
    return Inspector(db, blobs_root)
