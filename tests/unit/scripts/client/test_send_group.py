"""Sending against a peer that misbehaves: busy, failing, hanging up; the key stays the same."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.client.groups import Picture, UsageError
from scripts.client.send_group import GaveUp, Sender
from tests.unit.scripts.client.scripted_service import Peer, Say

PICTURE = (Picture(Path("a.jpg"), 5, 0, {"store_name": "s", "filename": "a.jpg"}), b"bytes")


@contextmanager
def sending(peer: Peer, patience: float = 20, settled: float = 20) -> Iterator[Sender]:
    sender = Sender(peer.url, None, patience, threading.Event(), settled)
    yield sender
    sender.close()


def test_a_busy_slow_failing_and_vanishing_service_is_asked_again_with_the_same_key(peer: Peer) -> None:
    peer.script = [Say(429), Say(None), Say(408, "body_too_slow"), None]
    with sending(peer) as sender:
        assert sender.send("key-1", [PICTURE])["http"] == 202
    assert [request.key for request in peer.requests] == ["key-1"] * 4
    assert peer.stored == ["a.jpg"]


def test_it_waits_as_long_as_the_service_asks(peer: Peer) -> None:
    peer.script = [Say(503, headers={"Retry-After": "1"}), None]
    with sending(peer) as sender:
        sender.send("key-1", [PICTURE])
    assert peer.requests[1].at - peer.requests[0].at >= 1.0  # of itself it would try again after half a second


@pytest.mark.parametrize("status", [413, 422])
def test_a_refusal_of_the_pictures_is_final(peer: Peer, status: int) -> None:
    peer.script = [Say(status, "too_many_values")]
    with sending(peer) as sender:
        assert sender.send("key-1", [PICTURE])["http"] == status
    assert len(peer.requests) == 1


@pytest.mark.parametrize("status", [200, 301, 401, 403, 404])
def test_a_refusal_that_is_not_about_the_pictures_is_said_at_once(peer: Peer, status: int) -> None:
    peer.script = [Say(status, "the_code")]
    with sending(peer) as sender, pytest.raises(GaveUp, match=f"HTTP {status} the_code: As the test says."):
        sender.send("key-1", [PICTURE])


def test_patience_ends_with_what_the_service_said_last(peer: Peer) -> None:
    peer.script = [Say(507, "disk_full")] * 9
    with sending(peer, patience=0.7) as sender, pytest.raises(GaveUp, match="disk_full"):
        sender.send("key-1", [PICTURE])


def test_a_key_of_another_request_is_asked_again_until_that_one_is_settled(peer: Peer) -> None:
    mismatch = Say(422, "idempotency_mismatch")
    peer.script = [mismatch, None, mismatch, mismatch, mismatch, mismatch]
    with sending(peer, settled=0.2) as sender:
        assert sender.send("in-flight-then-forgotten", [PICTURE])["http"] == 202
        assert sender.send("accepted", [PICTURE])["code"] == "idempotency_mismatch"


@pytest.mark.parametrize("url", ["127.0.0.1:5000", "localhost", "ftp://x", "http://", "http:///x", "http://x:abc", "http://x:99999", ""])
def test_an_address_that_is_none_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(UsageError, match="--url"):
        Sender(url, None, 1, threading.Event())
