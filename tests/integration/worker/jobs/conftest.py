"""Fixtures for the tests of jobs: small parts, and a worker in this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import failpoints, settings
from shared.catalog import bulk_parts, bulk_tags
from shared.jobs import progress
from shared.storage.mongo import Db
from tests.integration.worker.jobs.tagging import make_worker
from worker.jobs.pipeline import JobPipeline


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a request tag at most 4 images itself, and a part of a job 10 images."""
    monkeypatch.setattr(bulk_tags, "MAX_IN_REQUEST", 4)
    for name in ("_PART", "_MIN_PART"):
        monkeypatch.setattr(bulk_tags, name, 10)


@pytest.fixture
def worker(db: Db, mongo: settings.Mongo, blobs_root: Path) -> Iterator[JobPipeline]:
    """Return a pipeline that does jobs in this process."""
    pipeline = make_worker(db, mongo, blobs_root)
    yield pipeline
    pipeline.stop()


@pytest.fixture
def tiny_parts(small_parts: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A part has 10 images, of which 4 are written at once, and 2 of a rest."""
    monkeypatch.setattr(bulk_parts, "_IN_COMMAND", 4)
    monkeypatch.setattr(progress, "MAX_REST", 2)
    yield
    failpoints.install(None)
