"""Requests to a service that is busy, fails or closes the connection: retries use the same key."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.client.groups import Image, UsageError
from scripts.client.send_group import GaveUp, Sender
from tests.unit.scripts.client.scripted_service import LIMITS, Reply, ScriptedService

IMAGE = (Image(Path("a.jpg"), 5, 0, {"store_name": "s", "filename": "a.jpg"}), b"bytes")


@contextmanager
def open_sender(service: ScriptedService, retry_for: float = 20, settled: float = 20, key: str | None = None) -> Iterator[Sender]:
    sender = Sender(service.url, key, retry_for, threading.Event(), settled)
    yield sender
    sender.close()


def test_a_request_to_a_busy_failing_or_disconnecting_service_is_retried_with_the_same_key(service: ScriptedService) -> None:
    service.script = [Reply(429), Reply(None), Reply(408, "body_too_slow"), Reply(422, "digest_mismatch"), None]
    with open_sender(service) as sender:
        assert sender.send("key-1", [IMAGE])["http"] == 202
    assert [(request.key, request.is_intact) for request in service.requests] == [("key-1", True)] * 5
    assert service.stored == ["a.jpg"]


def test_a_retry_waits_for_the_time_of_retry_after(service: ScriptedService) -> None:
    service.script = [Reply(503, headers={"Retry-After": "1"}), None]
    with open_sender(service) as sender:
        sender.send("key-1", [IMAGE])
    assert service.requests[1].at - service.requests[0].at >= 1.0  # without the header the retry comes after half a second


@pytest.mark.parametrize("status", [413, 422])
def test_a_refusal_of_the_images_is_not_retried(service: ScriptedService, status: int) -> None:
    service.script = [Reply(status, "too_many_values")]
    with open_sender(service) as sender:
        assert sender.send("key-1", [IMAGE])["http"] == status
    assert len(service.requests) == 1


@pytest.mark.parametrize("status", [200, 301, 403, 404])
def test_a_refusal_for_another_reason_than_the_images_is_reported_at_once(service: ScriptedService, status: int) -> None:
    service.script = [Reply(status, "the_code")]
    with open_sender(service) as sender, pytest.raises(GaveUp, match=f"HTTP {status} the_code: Scripted by the test."):
        sender.send("key-1", [IMAGE])


@pytest.mark.parametrize(
    ("key", "reply", "sentence"),
    [
        (None, Reply(401, "unauthorized"), "The service requires an API key; set SHELFSIGHT_API_KEY, --api-key-file or --api-key (HTTP 401 unauthorized: Scripted by the test.)"),
        ("k", Reply(401, "unauthorized"), "The service refuses this API key; use another one (HTTP 401 unauthorized: Scripted by the test.)"),
        ("k", Reply(403, "missing_scope", members={"scope": "images:upload"}), "The API key lacks the scope images:upload; use a key that has it"),
        ("k", Reply(403, "foreign_store", members={"errors": [{"pointer": "/0/store_name"}]}), 'The API key does not include the stores "s"; use a key that includes them'),
        ("k", Reply(403, "foreign_store"), "The service refused the request: HTTP 403 foreign_store: Scripted by the test."),
    ],
)
def test_a_refused_key_is_explained_at_once(service: ScriptedService, key: str | None, reply: Reply, sentence: str) -> None:
    service.script = [reply]
    with open_sender(service, key=key) as sender, pytest.raises(GaveUp) as refusal:
        sender.send("key-1", [IMAGE])
    assert (str(refusal.value), len(service.requests)) == (sentence, 1)


def test_many_foreign_stores_are_named_in_part(service: ScriptedService) -> None:
    images = [Image(Path("a.jpg"), 5, 0, {"store_name": f"s{number}", "timestamp": 1}) for number in range(12)]
    service.script = [Reply(403, "foreign_store", members={"errors": [{"pointer": f"/{index}/store_name"} for index in range(12)]})]
    with open_sender(service, key="k") as sender, pytest.raises(GaveUp, match='"s7" and 2 more; use'):
        sender.send("key-1", [(image, b"bytes") for image in images])


def test_the_limits_are_public_but_an_invalid_key_is_refused(service: ScriptedService) -> None:
    service.api_key = "right"
    with open_sender(service) as sender:
        assert sender.fetch_limits() == LIMITS
    with open_sender(service, key="wrong") as sender, pytest.raises(GaveUp, match="The service refuses this API key"):
        sender.fetch_limits()


def test_retries_end_with_the_last_problem_that_the_service_reported(service: ScriptedService) -> None:
    service.script = [Reply(507, "disk_full")] * 9
    with open_sender(service, retry_for=0.7) as sender, pytest.raises(GaveUp, match="disk_full"):
        sender.send("key-1", [IMAGE])


def test_a_key_of_another_request_is_retried_until_that_request_is_settled(service: ScriptedService) -> None:
    mismatch = Reply(422, "idempotency_mismatch")
    service.script = [mismatch, None, mismatch, mismatch, mismatch, mismatch]
    with open_sender(service, settled=0.2) as sender:
        assert sender.send("in-flight-then-expired", [IMAGE])["http"] == 202
        assert sender.send("accepted", [IMAGE])["code"] == "idempotency_mismatch"


@pytest.mark.parametrize("url", ["127.0.0.1:5000", "localhost", "ftp://x", "http://", "http:///x", "http://x:abc", "http://x:99999", ""])
def test_an_invalid_url_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(UsageError, match="--url"):
        Sender(url, None, 1, threading.Event())
