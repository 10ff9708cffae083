"""Fixtures: a scene (``changed_batches``) with a batch that no worker has processed, or whose images are done."""

from collections.abc import Iterator

import pytest

from tests.integration.web.batches.changed_batches import Scene, run_scene
from tests.support.databases import Databases
from worker.vision.detection import detect


@pytest.fixture(scope="module")
def shared_scene(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    mongo = databases.lend()
    with run_scene(mongo, databases.connect(mongo), tmp_path_factory.mktemp("kills"), detect.load()) as scene:
        yield scene
    databases.give_back(mongo)


@pytest.fixture
def fresh(shared_scene: Scene) -> Scene:
    """Return a scene with a batch that no worker has processed."""
    shared_scene.upload()
    return shared_scene


@pytest.fixture
def scene(fresh: Scene) -> Scene:
    """Return a scene with a batch whose images are done."""
    fresh.process()
    fresh.tick()
    return fresh
