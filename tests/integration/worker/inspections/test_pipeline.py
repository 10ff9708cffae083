"""Inspections from a real source to their results: what is fetched, what is looked at, what is told."""

import hashlib
import io
import random
import threading
from collections.abc import Iterator
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
from worker.inspections.pipeline import Inspections
from worker.vision.detection.detect import Detector

pytestmark = pytest.mark.slow
NAMES = ("horizontal_flip", "rotate")


class Eyes:
    """The real detector, which counts how often it looks."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.info = detector.info
        self.looked = 0

    def predict(self, pictures: list[Any]) -> list[list[dict[str, Any]]]:
        self.looked += len(pictures)
        return self._detector.predict(pictures)


class Desk:
    """Asks, and lets it be worked on."""

    def __init__(self, made: Settings, db: Db, blobs: LocalBlobs, detector: Detector) -> None:
        self.settings = made.model_copy(
            update={
                "fetch": settings.Fetch(permitted_networks=[image_sources.PERMITTED_ADDRESS], whole_s=120, first_byte_s=120),
                "inspect": settings.Inspect(lease_s=60, fresh_s=100, keep_s=100, max_source_bytes=200_000),
            }
        )
        self.db, self.blobs = db, blobs
        self.eyes = Eyes(detector)
        eyes: Any = self.eyes
        self.work = Inspections(open_stores(self.settings, app="test", db=db, blobs=blobs), eyes, Fetcher(self.settings.fetch), "inspector-a")

    def ask(self, source: Source, recipe: Recipe) -> str:
        job, _ = jobs.ask(self.db, source, recipe, "client", keep_s=100)
        return job.id

    def finished(self, source: Source, recipe: Recipe) -> Job:
        job_id = self.ask(source, recipe)
        self.work.work_off(lambda: None, 60)
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

    def picture(self, job: Job, name: str) -> Image.Image:
        assert job.result is not None
        found = results.use(self.db, job.result)
        assert found is not None
        return Image.open(io.BytesIO(self.blobs.read(inspection_key(found["folder"], name))))

    def make_old(self, job: Job) -> None:
        self.db.inspections.update_one({"_id": job.id}, [{"$set": {"fresh_until": "$$NOW"}}])


@pytest.fixture
def desk(made: Settings, db: Db, blobs: LocalBlobs, detector: Detector) -> Iterator[Desk]:
    one = Desk(made, db, blobs, detector)
    yield one
    one.work.stop()


@pytest.fixture(scope="module")
def photo() -> bytes:
    return draw_valid_image(random.Random(9)).data


@contextmanager
def showing(data: bytes, **headers: str) -> Iterator[image_sources.SourceServer]:
    with image_sources.SourceServer(image_sources.respond_with(image_sources.ok_response(data, **headers))) as source:
        yield source


@contextmanager
def waiting(data: bytes) -> Iterator[tuple[image_sources.SourceServer, threading.Event]]:
    """Serve a picture to who asked for it once the event is set."""
    released = threading.Event()

    def slow(connection: Any, _: str) -> None:
        released.wait(280)
        connection.sendall(image_sources.ok_response(data))

    with image_sources.SourceServer(slow) as source:
        yield source, released


def test_a_picture_by_url_is_shown_with_its_augmentations(desk: Desk, photo: bytes) -> None:
    with showing(photo) as source:
        job = desk.finished(Source(url=f"{source.url}/a.jpg"), Augment(NAMES, seed=4))
    fields = desk.fields(job)
    assert [made["name"] for made in fields["augmentations"]] == list(NAMES)
    assert set(fields["files"]) == {ORIGINAL, *NAMES}
    assert (fields["bytes"], fields["sha256"]) == (len(photo), hashlib.sha256(photo).hexdigest())
    for name in fields["files"]:
        assert desk.picture(job, name).format == "JPEG"
        assert max(desk.picture(job, name).size) <= 700
    assert len(source.requests) == 1
    validate_documents(desk.db)


def test_a_picture_is_described_and_what_is_in_it_is_named(desk: Desk, photo: bytes, detector: Detector) -> None:
    with showing(photo) as source:
        job = desk.finished(Source(url=f"{source.url}/a.jpg"), Describe())
    fields = desk.fields(job)
    assert fields["model"] == detector.info
    assert isinstance(fields["detections"], list)
    assert {"format", "mode", "width", "height", "frames", "exif", "icc", "phash", "brightness", "sharpness", "dominant_colors", "barcodes"} <= set(fields)
    assert "effect" not in fields


def test_a_dream_is_another_picture_and_says_how_it_was_made(desk: Desk, photo: bytes) -> None:
    with showing(photo) as source:
        job = desk.finished(Source(url=f"{source.url}/a.jpg"), Describe(Dream(layer=1, strength=1)))
    assert desk.fields(job)["effect"] == {"name": DREAM, "layer": 1, "strength": 1}
    shown, dreamt = desk.picture(job, ORIGINAL), desk.picture(job, DREAM)
    assert shown.size == dreamt.size
    assert shown.tobytes() != dreamt.tobytes()


def failed(desk: Desk, behaviour: image_sources.ConnectionHandler | bytes, recipe: Recipe | None = None) -> dict[str, Any]:
    """Give what is told of a source that behaves so."""
    with image_sources.SourceServer(image_sources.respond_with(behaviour) if isinstance(behaviour, bytes) else behaviour) as source:
        job = desk.finished(Source(url=f"{source.url}/a.jpg"), recipe or Augment(NAMES))
    assert job.status == "failed"
    assert job.error is not None
    assert job.fresh
    validate_documents(desk.db)
    return job.error


def test_the_same_picture_under_another_url_is_not_looked_at_again(desk: Desk, photo: bytes) -> None:
    with showing(photo) as source:
        one = desk.finished(Source(url=f"{source.url}/a.jpg"), Describe())
        other = desk.finished(Source(url=f"{source.url}/b.jpg"), Describe())
    assert one.result == other.result
    assert (len(source.requests), desk.eyes.looked) == (2, 1)


def test_the_helpers_stay_from_picture_to_picture(desk: Desk, photo: bytes) -> None:
    def running() -> set[int]:
        return {one._child.pid for one in desk.work._helpers if one._child is not None}

    seen: list[set[int]] = []
    for number in range(6):
        with showing(photo) as source:
            desk.finished(Source(url=f"{source.url}/{number}.jpg"), Augment(NAMES, seed=number))
        seen.append(running())
    assert 1 <= len(seen[-1]) <= len(desk.work._helpers)
    assert set.union(*seen) == seen[-1]


def test_a_source_is_asked_whether_what_is_known_is_still_right(desk: Desk, photo: bytes) -> None:
    tagged = image_sources.ok_response(photo, ETag='"one"', Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT")
    unchanged = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n"

    def answer(connection: Any, asked: str) -> None:
        connection.sendall(unchanged if 'If-None-Match: "one"' in asked else tagged)

    with image_sources.SourceServer(answer) as source:
        first = desk.finished(Source(url=f"{source.url}/a.jpg"), Describe())
        desk.make_old(first)
        second = desk.finished(Source(url=f"{source.url}/a.jpg"), Describe())
        assert (second.status, second.result, second.seen, second.fresh) == ("done", first.result, first.seen, True)
        assert "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT" in source.requests[1]
        assert desk.eyes.looked == 1
        # Another model, or the result gone: the bytes are needed again, so nothing is said of what is known.
        desk.make_old(second)
        desk.db.inspection_results.update_one({"_id": first.result}, {"$set": {"going": True}})
        desk.db.inspection_results.delete_one({"_id": first.result})
        third = desk.finished(Source(url=f"{source.url}/a.jpg"), Describe())
        assert "If-None-Match" not in source.requests[2]
        assert (third.result, desk.eyes.looked) == (first.result, 2)


def test_nothing_is_said_of_what_is_known_to_where_a_redirect_leads_by_now(desk: Desk, photo: bytes) -> None:
    other = draw_valid_image(random.Random(10)).data
    places = {"/old.jpg": image_sources.ok_response(photo, ETag='"1"'), "/new.jpg": image_sources.ok_response(other, ETag='"1"')}
    leads_to = iter(["/old.jpg", "/new.jpg"])

    def answer(connection: Any, asked: str) -> None:
        path = asked.split(" ", 2)[1]
        unchanged = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n" if "If-None-Match" in asked else b""
        connection.sendall(image_sources.redirect_response(next(leads_to)) if path == "/x" else unchanged or places[path])

    with image_sources.SourceServer(answer) as source:
        first = desk.finished(Source(url=f"{source.url}/x"), Augment(NAMES))
        desk.make_old(first)
        second = desk.finished(Source(url=f"{source.url}/x"), Augment(NAMES))
    assert desk.fields(first)["sha256"] == hashlib.sha256(photo).hexdigest()
    assert desk.fields(second)["sha256"] == hashlib.sha256(other).hexdigest()


def test_another_model_looks_anew(desk: Desk, photo: bytes) -> None:
    with showing(photo, ETag='"one"') as source:
        first = desk.finished(Source(url=f"{source.url}/a.jpg"), Describe())
        desk.make_old(first)
        desk.eyes.info = {"name": "another"}
        second = desk.finished(Source(url=f"{source.url}/a.jpg"), Describe())
    assert first.result != second.result
    assert desk.fields(second)["model"] == {"name": "another"}
    assert "If-None-Match" not in source.requests[1]


def test_what_the_source_does_wrong_is_told_by_code(desk: Desk) -> None:
    assert failed(desk, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") == {
        "status": 422,
        "title": "Unexpected source status",
        "code": "upstream_status",
        "detail": "The source answers with status 404.",
        "extra": {"upstream_status": 404},
    }
    assert failed(desk, image_sources.ok_response(bytes(200_001)))["code"] == "source_too_large"
    assert failed(desk, image_sources.redirect_response("http://127.0.0.1/"))["code"] == "blocked_address"
    assert failed(desk, b"nonsense\r\n\r\n")["code"] == "upstream_error"


@pytest.mark.parametrize("recipe", [Augment(NAMES), Describe()])
def test_what_is_wrong_with_the_picture_is_told_by_code(recipe: Recipe, desk: Desk, photo: bytes) -> None:
    assert (failed(desk, image_sources.ok_response(b"<html>no picture"), recipe)["status"], failed(desk, image_sources.ok_response(b""), recipe)["code"]) == (415, "not_an_image")
    cut = failed(desk, image_sources.ok_response(photo[: len(photo) // 2]), recipe)
    assert (cut["status"], cut["code"]) == (422, "truncated")


def test_a_slow_source_holds_up_nobody_else(desk: Desk, photo: bytes) -> None:
    with waiting(photo) as (slowly, released), showing(photo) as quickly:
        late = desk.ask(Source(url=f"{slowly.url}/a.jpg"), Augment(NAMES))
        working = threading.Thread(target=desk.work.work_off, args=(lambda: None, 60))
        working.start()
        wait_until(lambda: slowly.requests, 120, "the slow one is being fetched")
        soon = desk.ask(Source(url=f"{quickly.url}/b.jpg"), Augment(NAMES))
        wait_until(lambda: jobs.get(desk.db, soon).status == "done", 120, "the other one is done")
        assert jobs.get(desk.db, late).status == "processing"
        released.set()
        working.join(120)
    assert not working.is_alive()


def test_a_task_ends_in_its_time_and_what_is_slow_goes_on_beside_the_next(desk: Desk, photo: bytes) -> None:
    with waiting(photo) as (slowly, released), showing(photo) as quickly:
        late = desk.ask(Source(url=f"{slowly.url}/a.jpg"), Augment(NAMES))
        assert desk.work.work_off(lambda: None, 0.5)  # somebody is to be rung for
        soon = desk.ask(Source(url=f"{quickly.url}/b.jpg"), Augment(NAMES))
        wait_until(lambda: desk.work.work_off(lambda: None, 1) and jobs.get(desk.db, soon).status == "done", 120, "the other one is done")
        assert jobs.get(desk.db, late).status == "processing"
        released.set()
        assert not desk.work.work_off(lambda: None, 60)
    assert jobs.get(desk.db, late).status == "done"


def test_more_than_a_source_is_asked_for_at_once_wait_and_are_done(desk: Desk, photo: bytes) -> None:
    inside, most = threading.Semaphore(0), []
    lock = threading.Lock()
    running = 0

    def watched(connection: Any, _: str) -> None:
        nonlocal running
        with lock:
            running += 1
            most.append(running)
        inside.acquire(timeout=0.2)  # long enough for the others to come, were they let
        with lock:
            running -= 1
        connection.sendall(image_sources.ok_response(photo))

    with image_sources.SourceServer(watched) as source:
        ids = [desk.ask(Source(url=f"{source.url}/{number}.jpg"), Augment(("noise",))) for number in range(12)]
        assert not desk.work.work_off(lambda: None, 60)
        assert [jobs.get(desk.db, one).status for one in ids] == ["done"] * len(ids)
    assert max(most) <= desk.settings.fetch.max_per_source


def test_a_picture_that_was_handed_over_is_looked_at_and_forgotten(desk: Desk, photo: bytes) -> None:
    source = Source(sha256=hashlib.sha256(photo).hexdigest())
    job_id = recipes.job_id(source, Describe())
    desk.blobs.write(incoming_key(job_id), [photo])
    job = desk.finished(source, Describe())
    assert desk.fields(job)["sha256"] == source.sha256
    assert desk.blobs.stat(incoming_key(job_id)) is None


def test_bytes_that_are_gone_are_asked_for_again(desk: Desk, photo: bytes) -> None:
    job = desk.finished(Source(sha256=hashlib.sha256(photo).hexdigest()), Describe())
    assert job.error is not None
    assert (job.error["status"], job.error["code"]) == (422, "bytes_missing")


def test_a_full_disk_is_waited_for(desk: Desk, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Any) -> None:
        raise DiskFull("There is no room left for files.")

    StoreIdentity(desk.db, desk.blobs).check()  # the disk is not full from the beginning
    with showing(photo) as source:
        with monkeypatch.context() as patch:
            patch.setattr(desk.blobs, "write_many", full)
            job_id = desk.ask(Source(url=f"{source.url}/a.jpg"), Augment(NAMES))
            desk.work.work_off(lambda: None, 1)
            wait_until(lambda: jobs.get(desk.db, job_id).status == "queued", 120, "it is given back")
        desk.work.work_off(lambda: None, 60)
    assert jobs.get(desk.db, job_id).status == "done"


def test_what_is_being_worked_on_is_given_back_when_it_is_told_to_stop(desk: Desk) -> None:
    released = threading.Event()

    def hang(*_: object) -> None:
        released.wait(280)

    with image_sources.SourceServer(hang) as source:
        job_id = desk.ask(Source(url=f"{source.url}/a.jpg"), Augment(NAMES))
        # The main loop looks up a claim again and again while a source is slow: there the stop reaches it.
        real, calls = jobs.claim, iter([True, False])

        def claim(*given: Any) -> list[Job]:
            if next(calls):
                return real(*given)
            raise SystemExit(0)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jobs, "claim", claim)
            with pytest.raises(SystemExit):
                desk.work.work_off(lambda: None, 60)
        released.set()
    job = jobs.get(desk.db, job_id)
    assert (job.status, job.fence) == ("queued", 1)
