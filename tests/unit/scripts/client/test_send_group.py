"""Requests to a service that is busy, fails or closes the connection: retries use the same key."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.client.groups import Image, UsageError
from scripts.client.send_group import GaveUp, Sender
from tests.unit.scripts.client.scripted_service import Reply, ScriptedService

IMAGE = (Image(Path("a.jpg"), 5, 0, {"store_name": "s", "filename": "a.jpg"}), b"bytes")


@contextmanager
def open_sender(service: ScriptedService, retry_for: float = 20, settled: float = 20) -> Iterator[Sender]:
    sender = Sender(service.url, None, retry_for, threading.Event(), settled)
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


@pytest.mark.parametrize("status", [200, 301, 401, 403, 404])
def test_a_refusal_for_another_reason_than_the_images_is_reported_at_once(service: ScriptedService, status: int) -> None:
    service.script = [Reply(status, "the_code")]
    with open_sender(service) as sender, pytest.raises(GaveUp, match=f"HTTP {status} the_code: Scripted by the test."):
        sender.send("key-1", [IMAGE])


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
