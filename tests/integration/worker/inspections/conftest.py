"""Fixtures for the tests of inspections."""

import random
from collections.abc import Iterator

import pytest

from shared.settings import Settings
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.faults.images import draw_valid_image
from tests.integration.worker.inspections.inspecting import Inspector
from worker.vision.detection.detect import Detector


@pytest.fixture
def inspector(worker_settings: Settings, db: Db, blobs: LocalBlobs, detector: Detector) -> Iterator[Inspector]:
    inspector = Inspector(worker_settings, db, blobs, detector)
    yield inspector
    inspector.pipeline.stop()


@pytest.fixture(scope="module")
def photo() -> bytes:
    return draw_valid_image(random.Random(9)).data
