"""Fixtures that more than one kind of test needs: real servers, started once, and a database of its own for each test."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts.local.temporary_servers import Mongod, RedisServer
from shared import settings
from shared.storage.mongo import Db, connect
from shared.storage.schema import create_indexes
from tests.support.image_sources import PERMITTED_ADDRESS
from tests.support.service_stack import Service, Stack

INSPECTION_SETTINGS = {
    "FETCH_PERMITTED_NETWORKS": json.dumps([PERMITTED_ADDRESS]),
    "FETCH_FIRST_BYTE_S": "8",
    "FETCH_WHOLE_S": "120",
    "FETCH_RESOLVE_S": "15",
    "INSPECT_WAIT_S": "60",
    "INSPECT_FAILED_S": "600",
    "INSPECT_LEASE_S": "10",
    "INSPECT_PER_MINUTE": "1000",
    "RES_OPTIONS": "timeout:1 attempts:1",
}
"""How the shared stack looks at single pictures: it may fetch from the tests' sources, neither slow ones nor lost leases are waited for long,
and a failure stays what it is while it is looked at from all sides. A machine whose name server does not answer says so soon
(resolv.conf(5)), and is given the time for it."""
LONG_TIMEOUTS: dict[str, Any] = {"server_selection_timeout_s": 30, "commit_deadline_s": 60, "query_deadline_s": 60}
"""How long a test waits for the database, unless its going away is the matter: other tests may hold the disk for seconds."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of the whole run against a service that runs already, and those of containers know their deployment."""
    about = "address of a running service: the tests of tests/e2e that need no more are run against it, the others are skipped"
    parser.addoption("--base-url", metavar="URL", help=about)
    parser.addoption("--deployment", metavar="PROJECT", help="its compose project, for tests/containers: scripts/test-containers says it")


@pytest.fixture(autouse=True)
def _restore_pillow_limit() -> Iterator[None]:
    """Put Pillow's limit of pixels back, which is one for the process: a picture that was refused in one test is none of the next one's."""
    before = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = before


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """Run a real MongoDB, shared by all tests; take ``db`` unless the server itself is the matter."""
    with Mongod(tmp_path_factory.mktemp("mongod") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def mongo_url(mongod: Mongod) -> str:
    """Give the address of the shared MongoDB."""
    return mongod.url


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Run a real Redis, shared by all tests."""
    with RedisServer(tmp_path_factory.mktemp("redis") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """Give the address of the shared Redis."""
    return redis_server.url


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run everything, as ``scripts/start`` starts it, shared by the tests that need the whole; one worker."""
    whole = Stack(tmp_path_factory.mktemp("stack") / "data", settings=INSPECTION_SETTINGS)
    try:
        whole.start()
        yield whole
    finally:
        whole.stop()


@pytest.fixture(scope="session")
def service(request: pytest.FixtureRequest) -> Service:
    """Give a whole service by its address alone: that of ``--base-url``, else the shared ``stack``."""
    given: str | None = request.config.getoption("--base-url")
    if given:
        return Service(given.rstrip("/"))
    stack: Stack = request.getfixturevalue("stack")
    return Service(stack.url)


@pytest.fixture
def mongo(mongo_url: str) -> settings.Mongo:
    """Give settings of a database that is this test's alone."""
    return settings.Mongo(url=mongo_url, database=f"test_{uuid.uuid4().hex[:12]}", **LONG_TIMEOUTS)


@pytest.fixture
def db(mongo: settings.Mongo) -> Iterator[Db]:
    """Make a fresh database with all indexes, dropped afterwards."""
    database = connect(mongo, app="test")
    create_indexes(database)
    yield database
    database.client.drop_database(database.name)
    database.client.close()


@pytest.fixture
def blobs_root(tmp_path: Path) -> Path:
    """Name a folder for blobs that is this test's alone."""
    return tmp_path / "blobs"
