"""Selection of the tests that can run against an external service, and the fixture of the browser."""

from collections.abc import Iterator

import pytest

from tests.e2e import browser as chromium
from tests.e2e.browser import Browser


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--base-url``, skip the tests that need more than a URL: those that do not use ``service`` or that use ``stack``."""
    if not config.getoption("--base-url"):
        return
    skip = pytest.mark.skip(reason="needs its own installation: its processes, its folder, or its web front without a proxy")
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if item.get_closest_marker("e2e") and ("service" not in fixtures or "stack" in fixtures):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Run a browser, shared by the tests that open pages."""
    if not chromium.is_installed():
        pytest.skip("no chromium on PATH")
    shared_browser = Browser(tmp_path_factory.mktemp("browser"))
    yield shared_browser
    shared_browser.close()
