"""Failures of the source and of the image have codes; after failures of the environment, an inspection is retried."""

import hashlib
import threading
from typing import Any

import pytest

from shared.errors import DiskFull
from shared.inspections import jobs
from shared.inspections.jobs import Job
from shared.inspections.recipes import Augment, Describe, Recipe, Source
from shared.storage.identity import StoreIdentity
from tests.integration.worker.inspections.inspecting import NAMES, Inspector, serving
from tests.support import image_sources
from tests.support.ledger import validate_documents
from tests.support.service_stack import wait_until

pytestmark = pytest.mark.slow


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
