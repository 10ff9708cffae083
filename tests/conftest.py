"""Fixtures for several kinds of tests: real servers that are started once, and a separate database for each test."""

import gc
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts.local.temporary_servers import Mongod, RedisServer
from shared import settings
from shared.storage.mongo import Db
from tests.support.databases import Databases
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
"""Inspection settings of the shared stack.

It may fetch from the tests' sources. The limits for slow sources and lost leases are short. A failed inspection is kept for
600 s, so that a test can read it several times. With RES_OPTIONS (resolv.conf(5)) the resolver gives up soon when the
machine's name server does not respond, and FETCH_RESOLVE_S is long enough for that.
"""
LONG_TIMEOUTS: dict[str, Any] = {"server_selection_timeout_s": 30, "commit_deadline_s": 60, "query_deadline_s": 60}
"""Database timeouts of all tests except those of an unreachable database. Other tests may block the disk for seconds."""


def pytest_configure() -> None:
    """Reach the servers of the tests directly, even if the environment names a proxy (``http_proxy``), and download nothing."""
    local = f"localhost,127.0.0.1,{PERMITTED_ADDRESS}"
    os.environ.setdefault("MONGOD_DOWNLOAD", "off")  # scripts/start would download a mongod for a new data folder
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = f"{os.environ[name]},{local}" if os.environ.get(name) else local


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that let ``tests/e2e`` use a running service and ``tests/containers`` find their deployment."""
    base_url_help = "URL of a running service: the tests of tests/e2e that need only a URL run against it, the others are skipped"
    parser.addoption("--base-url", metavar="URL", help=base_url_help)
    parser.addoption("--deployment", metavar="PROJECT", help="compose project of that service, for tests/containers; set by scripts/test-containers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files with slow tests first, so that at the end no process works on one of them while the others are idle."""
    slow = {item.path for item in items if any(item.get_closest_marker(name) for name in ("slow", "e2e", "faults"))}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Exempt the objects that exist now from garbage collection: hundreds of thousands, mostly of imported modules."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _restore_pillow_limit() -> Iterator[None]:
    """Restore Pillow's pixel limit, which is global to the process, so that one test does not affect the next."""
    limit = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = limit


@pytest.fixture(autouse=True)
def _ignore_records_of_earlier_threads(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Keep what the threads of earlier tests log out of ``caplog``, because a thread can end after its test has ended."""
    earlier = {thread for thread in threading.enumerate() if thread is not threading.current_thread()}

    def is_of_this_test(_record: logging.LogRecord) -> bool:
        return threading.current_thread() not in earlier

    caplog.handler.addFilter(is_of_this_test)
    yield
    caplog.handler.removeFilter(is_of_this_test)


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """Run a real MongoDB, shared by all tests. Tests use ``db`` unless they test the server itself."""
    with Mongod(tmp_path_factory.mktemp("mongod") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def mongo_url(mongod: Mongod) -> str:
    """Return the URL of the shared MongoDB."""
    return mongod.url


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Run a real Redis, shared by all tests."""
    with RedisServer(tmp_path_factory.mktemp("redis") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """Return the URL of the shared Redis."""
    return redis_server.url


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run all services as ``scripts/start`` starts them, with one worker, shared by the tests that need them all."""
    shared_stack = Stack(tmp_path_factory.mktemp("stack") / "data", settings=INSPECTION_SETTINGS)
    try:
        shared_stack.start()
        yield shared_stack
    finally:
        shared_stack.stop()


@pytest.fixture(scope="session")
def service(request: pytest.FixtureRequest) -> Service:
    """Return a service of which the test knows only the URL: that of ``--base-url``, else the shared ``stack``."""
    base_url: str | None = request.config.getoption("--base-url")
    if base_url:
        return Service(base_url.rstrip("/"))
    stack: Stack = request.getfixturevalue("stack")
    return Service(stack.url)


@pytest.fixture(scope="session")
def databases(mongo_url: str) -> Iterator[Databases]:
    """Return the databases that the tests use in turn."""
    lender = Databases(mongo_url, LONG_TIMEOUTS)
    yield lender
    lender.close()


@pytest.fixture
def mongo(request: pytest.FixtureRequest, databases: Databases) -> Iterator[settings.Mongo]:
    """Return the settings of a database that only this test uses. It does not exist yet, unless the test uses ``db``."""
    if "db" not in request.fixturenames:
        yield databases.new_settings()
        return
    lent = databases.lend()
    yield lent
    databases.give_back(lent)


@pytest.fixture
def db(mongo: settings.Mongo, databases: Databases) -> Db:
    """Return a database with all indexes and without documents, which only this test uses."""
    return databases.connect(mongo)


@pytest.fixture
def blobs_root(tmp_path: Path) -> Path:
    """Return a path for blobs that only this test uses. The folder does not exist yet."""
    return tmp_path / "blobs"
