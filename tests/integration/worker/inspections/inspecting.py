"""Helpers for the tests of inspections: an inspector with a real pipeline, and sources that serve an image."""

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from shared import settings
from shared.bootstrap import open_stores
from shared.fetch.client import Fetcher
from shared.inspections import jobs, recipes, results
from shared.inspections.jobs import Job
from shared.inspections.recipes import Describe, Dream, Recipe, Source
from shared.settings import Settings
from shared.storage.blob_keys import incoming_key, inspection_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.support import image_sources
from worker.inspections.pipeline import InspectionPipeline
from worker.vision.detection.detect import Detector

NAMES = ("horizontal_flip", "rotate")


class CountingDetector:
    """Calls the real detector, and counts the images that it processes."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.info = detector.info
        self.images = 0

    def predict(self, images: list[Any]) -> list[list[dict[str, Any]]]:
        self.images += len(images)
        return self._detector.predict(images)


class Inspector:
    """Requests inspections, and processes them with a real pipeline."""

    def __init__(
        self,
        worker_settings: Settings,
        db: Db,
        blobs: LocalBlobs,
        detector: Detector,
        *,
        lease_s: float = 60,
        owner: str = "inspector-a",
    ) -> None:
        self.settings = worker_settings.model_copy(
            update={
                "fetch": settings.Fetch(
                    permitted_networks=[image_sources.PERMITTED_ADDRESS], whole_s=120, first_byte_s=120
                ),
                "inspect": settings.Inspect(lease_s=lease_s, fresh_s=100, keep_s=100, max_source_bytes=200_000),
            }
        )
        self.db, self.blobs = db, blobs
        self.detector = CountingDetector(detector)
        counting: Any = self.detector
        self.pipeline = InspectionPipeline(
            open_stores(self.settings, app="test", db=db, blobs=blobs),
            counting,
            Fetcher(self.settings.fetch),
            owner,
        )

    def request(self, source: Source, recipe: Recipe) -> str:
        job, _ = jobs.request(self.db, source, recipe, "client", keep_s=100)
        return job.id

    def run(self, source: Source, recipe: Recipe) -> Job:
        job_id = self.request(source, recipe)
        self.pipeline.run(lambda: None, 60)
        job = jobs.get(self.db, job_id)
        assert not job.pending
        return job

    def fields(self, job: Job) -> dict[str, Any]:
        assert job.error is None
        assert job.result is not None
        found = results.use(self.db, job.result)
        assert found is not None
        fields: dict[str, Any] = found["fields"]
        return fields

    def image(self, job: Job, name: str) -> Image.Image:
        assert job.result is not None
        found = results.use(self.db, job.result)
        assert found is not None
        return Image.open(io.BytesIO(self.blobs.read(inspection_key(found["folder"], name))))

    def make_old(self, job: Job) -> None:
        self.db.inspections.update_one({"_id": job.id}, [{"$set": {"fresh_until": "$$NOW"}}])


@contextmanager
def serving(data: bytes, **headers: str) -> Iterator[image_sources.SourceServer]:
    with image_sources.SourceServer(image_sources.respond_with(image_sources.ok_response(data, **headers))) as source:
        yield source


@contextmanager
def serving_later(data: bytes) -> Iterator[tuple[image_sources.SourceServer, threading.Event]]:
    """Run a source that receives requests, but sends the image only after the event is set."""
    released = threading.Event()

    def slow(connection: Any, _: str) -> None:
        released.wait(280)
        connection.sendall(image_sources.ok_response(data))

    with image_sources.SourceServer(slow) as source:
        yield source, released


class SlowDreamer:
    """Replaces the dreamer: each dream waits for a function, which returns the image or raises an error."""

    def __init__(self, wait: Callable[[], object]) -> None:
        self._wait = wait

    def dream(self, rgb: Any, *_: object) -> Any:
        self._wait()
        return rgb


def request_dreams(inspector: Inspector, data: bytes, number: int) -> list[str]:
    """Upload an image and request several dreams of it."""
    source = Source(sha256=hashlib.sha256(data).hexdigest())
    dreams = [Describe(Dream(layer=1, strength=at / 10)) for at in range(1, number + 1)]
    for dream in dreams:
        inspector.blobs.write(incoming_key(recipes.job_id(source, dream)), [data])
    return [inspector.request(source, dream) for dream in dreams]
