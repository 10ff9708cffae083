"""Which tests of the whole can run against somebody else's service; and the browser that they look with."""

from collections.abc import Iterator

import pytest

from tests.e2e import browser as chromium
from tests.e2e.browser import Browser


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--base-url`` skip what needs more than an address, that is what does not ask for ``service`` alone."""
    if not config.getoption("--base-url"):
        return
    skip = pytest.mark.skip(reason="needs a house of its own: its processes, its folder, or its server without a proxy before it")
    for item in items:
        asked = set(getattr(item, "fixturenames", ()))
        if item.get_closest_marker("e2e") and ("service" not in asked or "stack" in asked):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Run a browser, shared by the tests that look at pages."""
    if not chromium.is_installed():
        pytest.skip("no chromium on PATH")
    one = Browser(tmp_path_factory.mktemp("browser"))
    yield one
    one.close()
