"""Fixtures of the unit tests of the web front."""

from collections.abc import Iterator

import pytest
from flask import Flask

from tests.support.applications import open_app


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    """Return an application with default settings, which has opened no connection."""
    with open_app() as application:
        yield application
