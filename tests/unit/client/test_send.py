"""Sending against a peer that misbehaves: busy, failing, hanging up; the key stays the same."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts.client.plan import Batch, Picture
from scripts.client.send import GaveUp, Sender


class Peer(ThreadingHTTPServer):
    """Answers uploads as its script says: a status, or None to hang up."""

    script: list[int | None]
    keys: list[str | None]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Peer)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.keys.append(self.headers["Idempotency-Key"])
        status = self.server.script.pop(0) if len(self.server.script) > 1 else self.server.script[0]
        if status is None:
            self.close_connection = True
            return
        body = json.dumps({"batch_id": "b", "total": 1, "images": [], "code": "x"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name is the base class's
        pass


@pytest.fixture
def peer() -> Iterator[Peer]:
    server = Peer(("127.0.0.1", 0), Handler)
    server.keys = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"bytes")
    return Batch("key-1", [Picture(path, 5, {"store_name": "s"})])


def sender(peer: Peer, patience: float = 20) -> Sender:
    return Sender(f"http://127.0.0.1:{peer.server_port}", None, patience, threading.Event())


def test_a_busy_failing_and_vanishing_service_is_asked_again_with_the_same_key(peer: Peer, batch: Batch) -> None:
    peer.script = [429, None, 503, 202]
    sending = sender(peer)
    assert sending.send(batch)["http"] == 202
    sending.close()
    assert peer.keys == ["key-1"] * 4


def test_a_refusal_is_final(peer: Peer, batch: Batch) -> None:
    peer.script = [422]
    sending = sender(peer)
    assert sending.send(batch)["http"] == 422
    sending.close()
    assert len(peer.keys) == 1


def test_patience_ends(peer: Peer, batch: Batch) -> None:
    peer.script = [503]
    sending = sender(peer, patience=0.7)
    with pytest.raises(GaveUp):
        sending.send(batch)
    sending.close()
