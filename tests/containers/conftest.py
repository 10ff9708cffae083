"""Fixtures of the deployment under test."""

import sys
from collections.abc import Callable, Iterator

import httpx
import pytest

from scripts.containers.engine import Deployment


@pytest.fixture(scope="session")
def deployment(pytestconfig: pytest.Config) -> Deployment:
    """Return the compose project that ``scripts/test-containers`` has started."""
    project = pytestconfig.getoption("deployment")
    if project is None:
        pytest.skip("needs a deployment in containers: run scripts/test-containers")
    return Deployment(project)


@pytest.fixture(scope="session")
def url(deployment: Deployment, pytestconfig: pytest.Config) -> str:
    """Return the URL of its nginx."""
    return str(pytestconfig.getoption("base_url"))


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    """Return an HTTP client of its nginx."""
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
def report(capfd: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Return a function that prints a measured figure while pytest captures the output."""

    def write(text: str) -> None:
        with capfd.disabled():
            sys.stdout.write(f"\n   {text}\n")

    return write
