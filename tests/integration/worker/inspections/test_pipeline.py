"""Tests of inspections with a real source: fetching, processing, storing results, and failing."""

import hashlib
import io
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image

from shared import settings
from shared.bootstrap import open_stores
from shared.errors import DiskFull
from shared.fetch.client import Fetcher
from shared.inspections import jobs, recipes, results
from shared.inspections.jobs import Job
from shared.inspections.recipes import Augment, Describe, Dream, Recipe, Source
from shared.settings import Settings
from shared.storage.blob_keys import incoming_key, inspection_key
from shared.storage.identity import StoreIdentity
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from shared.variants import DREAM, ORIGINAL
from tests.faults.images import draw_valid_image
from tests.support import image_sources
from tests.support.ledger import validate_documents
from tests.support.service_stack import wait_until
from worker.inspections.pipeline import InspectionPipeline
from worker.vision.detection.detect import Detector

pytestmark = pytest.mark.slow
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


@pytest.fixture
def inspector(worker_settings: Settings, db: Db, blobs: LocalBlobs, detector: Detector) -> Iterator[Inspector]:
    inspector = Inspector(worker_settings, db, blobs, detector)
    yield inspector
    inspector.pipeline.stop()


@pytest.fixture(scope="module")
def photo() -> bytes:
    return draw_valid_image(random.Random(9)).data


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


def test_an_image_by_url_is_stored_with_its_augmentations(inspector: Inspector, photo: bytes) -> None:
    with serving(photo) as source:
        job = inspector.run(Source(url=f"{source.url}/a.jpg"), Augment(NAMES, seed=4))
    fields = inspector.fields(job)
    assert [augmentation["name"] for augmentation in fields["augmentations"]] == list(NAMES)
    assert set(fields["files"]) == {ORIGINAL, *NAMES}
    assert (fields["bytes"], fields["sha256"]) == (len(photo), hashlib.sha256(photo).hexdigest())
    for name in fields["files"]:
        assert inspector.image(job, name).format == "JPEG"
        assert max(inspector.image(job, name).size) <= 700
    assert len(source.requests) == 1
    validate_documents(inspector.db)


def test_an_image_is_described_and_its_objects_are_detected(
    inspector: Inspector, photo: bytes, detector: Detector
) -> None:
    with serving(photo) as source:
        job = inspector.run(Source(url=f"{source.url}/a.jpg"), Describe())
    fields = inspector.fields(job)
    assert fields["model"] == detector.info
    assert isinstance(fields["detections"], list)
    assert {
        "format",
        "mode",
        "width",
        "height",
        "frames",
        "exif",
        "icc",
        "phash",
        "brightness",
        "sharpness",
        "dominant_colors",
        "barcodes",
    } <= set(fields)
    assert "effect" not in fields


def test_a_dream_is_another_image_with_its_parameters(inspector: Inspector, photo: bytes) -> None:
    with serving(photo) as source:
        job = inspector.run(Source(url=f"{source.url}/a.jpg"), Describe(Dream(layer=1, strength=1)))
    assert inspector.fields(job)["effect"] == {"name": DREAM, "layer": 1, "strength": 1}
    original, dream = inspector.image(job, ORIGINAL), inspector.image(job, DREAM)
    assert original.size == dream.size
    assert original.tobytes() != dream.tobytes()


def failure(
    inspector: Inspector, behaviour: image_sources.ConnectionHandler | bytes, recipe: Recipe | None = None
) -> dict[str, Any]:
    """Run an inspection that must fail, and return its error.

    :param behaviour: the handler of the source, or the response that the source sends.
    """
    with image_sources.SourceServer(
        image_sources.respond_with(behaviour) if isinstance(behaviour, bytes) else behaviour
    ) as source:
        job = inspector.run(Source(url=f"{source.url}/a.jpg"), recipe or Augment(NAMES))
    assert job.status == "failed"
    assert job.error is not None
    assert job.fresh
    validate_documents(inspector.db)
    return job.error


def test_the_same_image_under_another_url_is_not_processed_again(inspector: Inspector, photo: bytes) -> None:
    with serving(photo) as source:
        first = inspector.run(Source(url=f"{source.url}/a.jpg"), Describe())
        second = inspector.run(Source(url=f"{source.url}/b.jpg"), Describe())
    assert first.result == second.result
    assert (len(source.requests), inspector.detector.images) == (2, 1)


def test_the_sandbox_children_are_kept_between_images(inspector: Inspector, photo: bytes) -> None:
    def running() -> set[int]:
        return {sandbox._child.pid for sandbox in inspector.pipeline._sandboxes if sandbox._child is not None}

    children: list[set[int]] = []
    for number in range(6):
        with serving(photo) as source:
            inspector.run(Source(url=f"{source.url}/{number}.jpg"), Augment(NAMES, seed=number))
        children.append(running())
    assert 1 <= len(children[-1]) <= len(inspector.pipeline._sandboxes)
    assert set.union(*children) == children[-1]


def test_a_source_is_requested_conditionally_while_its_result_is_kept(inspector: Inspector, photo: bytes) -> None:
    tagged = image_sources.ok_response(photo, ETag='"one"', Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT")
    unchanged = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n"

    def respond(connection: Any, request: str) -> None:
        connection.sendall(unchanged if 'If-None-Match: "one"' in request else tagged)

    with image_sources.SourceServer(respond) as source:
        first = inspector.run(Source(url=f"{source.url}/a.jpg"), Describe())
        inspector.make_old(first)
        second = inspector.run(Source(url=f"{source.url}/a.jpg"), Describe())
        assert (second.status, second.result, second.validators, second.fresh) == (
            "done",
            first.result,
            first.validators,
            True,
        )
        assert "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT" in source.requests[1]
        assert inspector.detector.images == 1
        # If the result is missing or another model is in use, the bytes are needed. So the request is unconditional.
        inspector.make_old(second)
        inspector.db.inspection_results.update_one({"_id": first.result}, {"$set": {"going": True}})
        inspector.db.inspection_results.delete_one({"_id": first.result})
        third = inspector.run(Source(url=f"{source.url}/a.jpg"), Describe())
        assert "If-None-Match" not in source.requests[2]
        assert (third.result, inspector.detector.images) == (first.result, 2)


def test_validators_are_not_sent_to_another_target_of_a_redirect(inspector: Inspector, photo: bytes) -> None:
    other = draw_valid_image(random.Random(10)).data
    responses = {
        "/old.jpg": image_sources.ok_response(photo, ETag='"1"'),
        "/new.jpg": image_sources.ok_response(other, ETag='"1"'),
    }
    targets = iter(["/old.jpg", "/new.jpg"])

    def respond(connection: Any, request: str) -> None:
        path = request.split(" ", 2)[1]
        unchanged = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n" if "If-None-Match" in request else b""
        connection.sendall(
            image_sources.redirect_response(next(targets)) if path == "/x" else unchanged or responses[path]
        )

    with image_sources.SourceServer(respond) as source:
        first = inspector.run(Source(url=f"{source.url}/x"), Augment(NAMES))
        inspector.make_old(first)
        second = inspector.run(Source(url=f"{source.url}/x"), Augment(NAMES))
    assert inspector.fields(first)["sha256"] == hashlib.sha256(photo).hexdigest()
    assert inspector.fields(second)["sha256"] == hashlib.sha256(other).hexdigest()


def test_another_model_makes_another_result(inspector: Inspector, photo: bytes) -> None:
    with serving(photo, ETag='"one"') as source:
        first = inspector.run(Source(url=f"{source.url}/a.jpg"), Describe())
        inspector.make_old(first)
        inspector.detector.info = {"name": "another"}
        second = inspector.run(Source(url=f"{source.url}/a.jpg"), Describe())
    assert first.result != second.result
    assert inspector.fields(second)["model"] == {"name": "another"}
    assert "If-None-Match" not in source.requests[1]


def test_errors_of_the_source_have_codes(inspector: Inspector) -> None:
    assert failure(inspector, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") == {
        "status": 422,
        "title": "Unexpected source status",
        "code": "upstream_status",
        "detail": "Unexpected response from the source: status 404, expected 200.",
        "extra": {"upstream_status": 404},
    }
    assert failure(inspector, image_sources.ok_response(bytes(200_001)))["code"] == "source_too_large"
    assert failure(inspector, image_sources.redirect_response("http://127.0.0.1/"))["code"] == "blocked_address"
    assert failure(inspector, b"nonsense\r\n\r\n")["code"] == "upstream_error"


@pytest.mark.parametrize("recipe", [Augment(NAMES), Describe()])
def test_errors_of_the_image_have_codes(recipe: Recipe, inspector: Inspector, photo: bytes) -> None:
    assert (
        failure(inspector, image_sources.ok_response(b"<html>no image"), recipe)["status"],
        failure(inspector, image_sources.ok_response(b""), recipe)["code"],
    ) == (415, "not_an_image")
    cut = failure(inspector, image_sources.ok_response(photo[: len(photo) // 2]), recipe)
    assert (cut["status"], cut["code"]) == (422, "truncated")


def test_a_slow_source_delays_no_other_inspection(inspector: Inspector, photo: bytes) -> None:
    with serving_later(photo) as (slow, released), serving(photo) as fast:
        late = inspector.request(Source(url=f"{slow.url}/a.jpg"), Augment(NAMES))
        thread = threading.Thread(target=inspector.pipeline.run, args=(lambda: None, 60))
        thread.start()
        wait_until(lambda: slow.requests, 120, "the fetch from the slow source")
        soon = inspector.request(Source(url=f"{fast.url}/b.jpg"), Augment(NAMES))
        wait_until(lambda: jobs.get(inspector.db, soon).status == "done", 120, "the inspection of the fast source")
        assert jobs.get(inspector.db, late).status == "processing"
        released.set()
        thread.join(120)
    assert not thread.is_alive()


def test_a_task_ends_in_its_time_and_a_slow_inspection_continues_beside_the_next(
    inspector: Inspector, photo: bytes
) -> None:
    with serving_later(photo) as (slow, released), serving(photo) as fast:
        late = inspector.request(Source(url=f"{slow.url}/a.jpg"), Augment(NAMES))
        assert inspector.pipeline.run(lambda: None, 0.5)  # True means that a wakeup must be published
        soon = inspector.request(Source(url=f"{fast.url}/b.jpg"), Augment(NAMES))
        wait_until(
            lambda: inspector.pipeline.run(lambda: None, 1) and jobs.get(inspector.db, soon).status == "done",
            120,
            "the inspection of the fast source",
        )
        assert jobs.get(inspector.db, late).status == "processing"
        released.set()
        assert not inspector.pipeline.run(lambda: None, 60)
    assert jobs.get(inspector.db, late).status == "done"


def test_inspections_beyond_the_limit_of_a_source_are_retried_and_done(inspector: Inspector, photo: bytes) -> None:
    never, counts = threading.Semaphore(0), []
    lock = threading.Lock()
    running = 0

    def count_connections(connection: Any, _: str) -> None:
        nonlocal running
        with lock:
            running += 1
            counts.append(running)
        never.acquire(timeout=0.2)  # long enough for the other fetches to connect if nothing prevents them
        with lock:
            running -= 1
        connection.sendall(image_sources.ok_response(photo))

    with image_sources.SourceServer(count_connections) as source:
        ids = [inspector.request(Source(url=f"{source.url}/{number}.jpg"), Augment(("noise",))) for number in range(12)]
        assert not inspector.pipeline.run(lambda: None, 60)
        assert [jobs.get(inspector.db, job_id).status for job_id in ids] == ["done"] * len(ids)
    assert max(counts) <= inspector.settings.fetch.max_per_source


def test_an_uploaded_image_is_processed_and_deleted(inspector: Inspector, photo: bytes) -> None:
    source = Source(sha256=hashlib.sha256(photo).hexdigest())
    job_id = recipes.job_id(source, Describe())
    inspector.blobs.write(incoming_key(job_id), [photo])
    job = inspector.run(source, Describe())
    assert inspector.fields(job)["sha256"] == source.sha256
    assert inspector.blobs.stat(incoming_key(job_id)) is None


def test_missing_bytes_of_an_upload_fail_its_inspection(inspector: Inspector, photo: bytes) -> None:
    job = inspector.run(Source(sha256=hashlib.sha256(photo).hexdigest()), Describe())
    assert job.error is not None
    assert (job.error["status"], job.error["code"]) == (422, "bytes_missing")


def test_an_inspection_is_retried_while_the_disk_is_full(
    inspector: Inspector, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Any) -> None:
        raise DiskFull("There is no room left for files.")

    StoreIdentity(inspector.db, inspector.blobs).check()  # write the store identity before the disk is full
    with serving(photo) as source:
        with monkeypatch.context() as patch:
            patch.setattr(inspector.blobs, "write_many", full)
            job_id = inspector.request(Source(url=f"{source.url}/a.jpg"), Augment(NAMES))
            inspector.pipeline.run(lambda: None, 1)
            wait_until(lambda: jobs.get(inspector.db, job_id).status == "queued", 120, "the release")
        inspector.pipeline.run(lambda: None, 60)
    assert jobs.get(inspector.db, job_id).status == "done"


def test_running_inspections_are_released_when_the_process_stops(inspector: Inspector) -> None:
    released = threading.Event()

    def hang(*_: object) -> None:
        released.wait(280)

    with image_sources.SourceServer(hang) as source:
        job_id = inspector.request(Source(url=f"{source.url}/a.jpg"), Augment(NAMES))
        # While the source is slow, the main loop calls jobs.claim repeatedly. Its second call raises SystemExit.
        real, calls = jobs.claim, iter([True, False])

        def claim(*args: Any, **kwargs: Any) -> list[Job]:
            if next(calls):
                return real(*args, **kwargs)
            raise SystemExit(0)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jobs, "claim", claim)
            with pytest.raises(SystemExit):
                inspector.pipeline.run(lambda: None, 60)
        released.set()
    job = jobs.get(inspector.db, job_id)
    assert (job.status, job.fence) == ("queued", 1)


@contextmanager
def limited(inspector: Inspector, hard_limit_s: float) -> Iterator[list[int]]:
    """Set a time limit for each step, and return the list of the exits of the inspector's process."""
    data = draw_valid_image(random.Random(11)).data
    source = Source(sha256=hashlib.sha256(data).hexdigest())
    inspector.blobs.write(incoming_key(recipes.job_id(source, Describe())), [data])
    inspector.run(source, Describe())  # starts the sandbox process before the limit is set
    inspector.pipeline._settings = inspector.settings.model_copy(
        update={"worker": inspector.settings.worker.model_copy(update={"hard_limit_s": hard_limit_s})}
    )
    exits: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.inspections.pipeline.os._exit", exits.append)
        yield exits
        inspector.pipeline.stop()


@pytest.fixture
def short_leases(worker_settings: Settings, db: Db, blobs: LocalBlobs, detector: Detector) -> Iterator[Inspector]:
    """Return an inspector whose leases end soon unless they are renewed, and which checks the time limits often."""
    inspector = Inspector(worker_settings, db, blobs, detector, lease_s=0.9)
    yield inspector
    inspector.pipeline.stop()


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


def test_dreams_that_wait_for_each_other_delay_no_other_inspection(inspector: Inspector, photo: bytes) -> None:
    inspector.pipeline._settings = inspector.settings.model_copy(
        update={"inspect": inspector.settings.inspect.model_copy(update={"at_once": 4})}
    )
    released = threading.Event()
    inspector.pipeline._dreamer = SlowDreamer(lambda: released.wait(280))  # type: ignore[assignment]
    dreams = request_dreams(inspector, photo, 8)
    thread = threading.Thread(target=inspector.pipeline.run, args=(lambda: None, 240))
    thread.start()
    wait_until(lambda: jobs.count_pending(inspector.db)["processing"] >= 2, 120, "the claim of two dreams")
    with serving(photo) as source:
        others = [inspector.request(Source(url=f"{source.url}/{number}.jpg"), Augment(NAMES)) for number in range(3)]
        wait_until(lambda: all(jobs.get(inspector.db, job_id).status == "done" for job_id in others), 120, "the other inspections")
    assert jobs.count_pending(inspector.db) == {"queued": 6, "processing": 2}
    released.set()
    thread.join(240)
    assert not thread.is_alive()
    assert [jobs.get(inspector.db, job_id).status for job_id in dreams] == ["done"] * 8


def test_dreams_that_one_inspector_leaves_are_done_by_another(
    inspector: Inspector, photo: bytes, worker_settings: Settings, db: Db, blobs: LocalBlobs, detector: Detector
) -> None:
    released = threading.Event()
    inspector.pipeline._dreamer = SlowDreamer(lambda: released.wait(280))  # type: ignore[assignment]
    dreams = request_dreams(inspector, photo, 5)
    thread = threading.Thread(target=inspector.pipeline.run, args=(lambda: None, 240))
    thread.start()
    wait_until(lambda: jobs.count_pending(db) == {"queued": 3, "processing": 2}, 120, "the claim of two dreams")
    other = Inspector(worker_settings, db, blobs, detector, owner="inspector-b")
    other.pipeline._dreamer = SlowDreamer(lambda: None)  # type: ignore[assignment]
    try:
        other.pipeline.run(lambda: None, 120)
    finally:
        other.pipeline.stop()
    assert sorted(jobs.get(db, job_id).status for job_id in dreams) == ["done"] * 3 + ["processing"] * 2
    released.set()
    thread.join(240)
    assert not thread.is_alive()
    assert [jobs.get(db, job_id).status for job_id in dreams] == ["done"] * 5


def test_an_inspection_that_exceeds_the_hard_limit_ends_the_process(short_leases: Inspector) -> None:
    released = threading.Event()

    def hang(*_: object) -> None:
        released.wait(280)

    with limited(short_leases, 0.1) as exits, image_sources.SourceServer(hang) as source:
        short_leases.request(Source(url=f"{source.url}/a.jpg"), Augment(NAMES))
        assert short_leases.pipeline.run(lambda: None, 0.5)
        wait_until(lambda: exits, 120, "the end of the process")
        released.set()
    assert set(exits) == {1}


def test_inspections_that_together_take_longer_than_the_hard_limit_are_done_one_after_the_other(
    short_leases: Inspector, photo: bytes
) -> None:
    with limited(short_leases, 5) as exits:
        short_leases.pipeline._dreamer = SlowDreamer(lambda: time.sleep(1.5))  # type: ignore[assignment]
        ids = request_dreams(short_leases, photo, 5)
        short_leases.pipeline.run(lambda: None, 120)
        found = [jobs.get(short_leases.db, job_id) for job_id in ids]
        assert [(job.status, job.fence) for job in found] == [("done", 1)] * 5  # no lease was lost in the meantime
        assert exits == []


def test_when_a_step_hangs_the_other_inspections_are_released_before_the_process_ends(
    short_leases: Inspector, photo: bytes
) -> None:
    db, released = short_leases.db, threading.Event()
    with limited(short_leases, 5) as exits:
        short_leases.pipeline._dreamer = SlowDreamer(lambda: released.wait(280))  # type: ignore[assignment]
        ids = request_dreams(short_leases, photo, 4)
        short_leases.pipeline.run(lambda: None, 0.5)
        wait_until(lambda: exits, 120, "the end of the process")
        found = [db.inspections.find_one({"_id": job_id}) or {} for job_id in ids]
        assert sorted(job["status"] for job in found) == ["processing", "queued", "queued", "queued"]
        wait_until(lambda: jobs.expire_leases(db, 10) == 1, 60, "the end of the lease of the hanging inspection")
        found = [db.inspections.find_one({"_id": job_id}) or {} for job_id in ids]
        assert sorted(job["losses"] for job in found) == [0, 0, 0, 1]
        released.set()


def test_an_inspection_that_waits_too_long_for_its_turn_fails_with_a_code(
    short_leases: Inspector, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    with limited(short_leases, 600) as exits:
        monkeypatch.setattr(jobs, "MAX_WAIT_S", 6)
        monkeypatch.setattr("worker.inspections.pipeline._RETRY_FOR_S", 3)
        short_leases.pipeline._dreamer = SlowDreamer(lambda: released.wait(280))  # type: ignore[assignment]
        ids = request_dreams(short_leases, photo, 2)
        short_leases.pipeline.run(lambda: None, 0.5)
        wait_until(lambda: any(not jobs.get(short_leases.db, job_id).pending for job_id in ids), 120, "the failure")
        released.set()
        short_leases.pipeline.run(lambda: None, 60)
        found = sorted((jobs.get(short_leases.db, job_id) for job_id in ids), key=lambda job: job.status)
        assert [job.status for job in found] == ["done", "failed"]
        error = found[1].error or {}
        assert (error["status"], error["code"], error["detail"]) == (503, "unavailable", jobs.NOT_IN_TIME)
        assert exits == []
