"""What inspections use again: results, the validators of a source, and sandbox processes."""

import hashlib
import random
from typing import Any

import pytest

from shared.inspections.recipes import Augment, Describe, Source
from tests.faults.images import draw_valid_image
from tests.integration.worker.inspections.inspecting import NAMES, Inspector, serving
from tests.support import image_sources

pytestmark = pytest.mark.slow


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
