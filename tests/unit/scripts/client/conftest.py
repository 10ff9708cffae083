"""Fixtures of the client's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.scripts.client.scripted_service import ScriptedService, serving


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    """Run a service whose responses a test can script."""
    with serving() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with six images."""
    path = tmp_path / "images"
    path.mkdir()
    for number in range(6):
        (path / f"{number}.jpg").write_bytes(b"image %d" % number)
    return path
