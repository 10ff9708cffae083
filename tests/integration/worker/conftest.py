"""Fixtures for the worker tests: an image pipeline that uses real servers, its settings, blob store, and detector."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared import failpoints, settings
from shared.bootstrap import Stores, open_stores
from shared.settings import Settings
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import make_pipeline
from worker.images.pipeline import ImagePipeline
from worker.spools.settler import Settler
from worker.vision.detection import detect


@pytest.fixture(scope="session")
def detector() -> detect.Detector:
    return detect.load()


@pytest.fixture
def worker_settings(mongo: settings.Mongo, blobs_root: Path) -> Settings:
    return Settings(
        mongo=mongo,
        blobs=settings.Blobs(root=blobs_root, min_free_bytes=0),
        redis=settings.Redis(url="redis://127.0.0.1:1/0"),
        worker=settings.Worker(lease_s=60, hard_limit_s=600, child_timeout_s=20),
    ).model_copy(  # does not require the age of orphans to be greater than the deadline of a commit
        update={"sweep": settings.Sweep(interval_s=240, clean_interval_s=0.01, orphan_age_s=0.01)}
    )


@pytest.fixture
def blobs(blobs_root: Path) -> LocalBlobs:
    return LocalBlobs(blobs_root)


@pytest.fixture
def pipeline(
    worker_settings: Settings, db: Db, blobs: LocalBlobs, detector: detect.Detector
) -> Iterator[ImagePipeline]:
    pipeline = make_pipeline(worker_settings, db, blobs, detector, "worker-a")
    yield pipeline
    pipeline.stop()


@pytest.fixture
def stores(worker_settings: Settings, db: Db, blobs: LocalBlobs) -> Stores:
    return open_stores(worker_settings, app="test", db=db, blobs=blobs)


@pytest.fixture
def failpoint() -> Iterator[Callable[[Callable[[str], None] | None], None]]:
    """Return a function that installs a hook for failpoints, or removes it (None). At the end of the test, it is removed."""
    yield failpoints.install
    failpoints.install(None)


@pytest.fixture
def without_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the spools to the sweep, as if each worker died after it had closed its batches."""
    monkeypatch.setattr(Settler, "submit", lambda *_: None)
