"""The web over real servers, and an inspector that does as it is told."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared import broker, settings
from shared.mongo import Db
from tests.integration.http import client
from tests.integration.inspections.inspector import Inspector
from tests.integration.inspections.kit import IMPATIENT
from web import rates


@pytest.fixture(autouse=True)
def _redis_may_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for it, as one that is away refuses at once in these tests."""
    monkeypatch.setattr(rates, "_PATIENCE_S", 30.0)
    monkeypatch.setattr(broker, "_PUBLISH_TIMEOUT_S", 30.0)


@pytest.fixture
def web(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> FlaskClient:
    return client(mongo, blobs_root, redis_url, inspect=IMPATIENT)


@pytest.fixture
def inspector(db: Db, blobs_root: Path) -> Inspector:
    return Inspector(db, blobs_root)
