"""The web over real servers, and an inspector that does as it is told."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared import settings
from shared.mongo import Db
from tests.integration.http import client
from tests.integration.inspections.inspector import Inspector
from tests.integration.inspections.kit import IMPATIENT


@pytest.fixture
def web(db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str) -> FlaskClient:
    return client(mongo, blobs_root, redis_url, inspect=IMPATIENT)


@pytest.fixture
def inspector(db: Db, blobs_root: Path) -> Inspector:
    return Inspector(db, blobs_root)
