"""Which tests of the whole can run against somebody else's service."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--base-url`` skip what needs more than an address, that is what does not ask for ``service`` alone."""
    if not config.getoption("--base-url"):
        return
    skip = pytest.mark.skip(reason="needs a house of its own: its processes, its folder, or its server without a proxy before it")
    for item in items:
        asked = set(getattr(item, "fixturenames", ()))
        if item.get_closest_marker("e2e") and ("service" not in asked or "stack" in asked):
            item.add_marker(skip)
