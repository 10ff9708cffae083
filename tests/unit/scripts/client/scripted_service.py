"""A service on loopback that keeps the contract's way with keys, and can be told to hold, refuse or stall."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

from werkzeug.formparser import parse_form_data

PATIENCE_S = 120
LIMITS = {"max_images": 100, "max_body_bytes": 1 << 26, "max_image_bytes": 1 << 20}


@dataclass
class Request:
    """An upload as it came: its key, its pictures by name, what was said of them, when (monotonic)."""

    key: str
    names: list[str]
    metadata: list[dict[str, Any]]
    at: float


@dataclass
class Say:
    """An answer that is given instead of the usual one."""

    status: int | None
    """None hangs up."""
    code: str = "unavailable"
    headers: dict[str, str] = field(default_factory=dict)


class Peer(ThreadingHTTPServer):
    """Takes pictures whose bytes do not begin with ``bad``; the same key and request is answered the same again."""

    def __init__(self) -> None:
        """Listen on a free port."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[Request] = []
        self.stored: list[str] = []
        """Names of the pictures taken, each as often as it was."""
        self.kept: dict[str, tuple[str, dict[str, Any]]] = {}
        self.script: list[Say | None] = []
        """For the next uploads, one each: what to say instead of the usual (None)."""
        self.on_limits: Callable[[], None] = lambda: None
        self.token: str | None = None
        self.finished = True
        self.answering = threading.Event()
        """While cleared, uploads are taken and kept, but not answered."""
        self.answering.set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def wait_for(self, count: int) -> None:
        """Wait until so many uploads have come."""
        until = time.monotonic() + PATIENCE_S
        while len(self.requests) < count:
            assert time.monotonic() < until, f"{len(self.requests)} uploads came, not {count}"
            time.sleep(0.01)

    def take(self, request: Request, digest: str, files: list[bytes]) -> tuple[int, dict[str, Any]]:
        """Accept an upload as the contract says."""
        with self.lock:
            if request.key in self.kept:
                known, answer = self.kept[request.key]
                return (202, answer) if known == digest else (422, {"code": "idempotency_mismatch", "detail": "Another request."})
            images: list[dict[str, Any]] = []
            for at, (name, data) in enumerate(zip(request.names, files, strict=True)):
                images.append({"index": at, "status": "queued", "name": name})
                if data.startswith(b"bad"):
                    wrong = {"pointer": f"/{at}/file", "code": "unsupported_format", "detail": "No picture."}
                    images[at] = {"index": at, "status": "rejected", "errors": [wrong]}
            good: list[str] = [one["name"] for one in images if one["status"] == "queued"]
            if not good:
                return 422, {"code": "invalid", "detail": "Nothing good.", "errors": [one["errors"][0] for one in images]}
            self.stored += good
            answer = {"batch_id": f"b{len(self.kept)}", "total": len(good), "images": images}
            self.kept[request.key] = (digest, answer)
            return 202, answer


class Handler(BaseHTTPRequestHandler):
    server: Peer

    def do_GET(self) -> None:
        if self.server.token is not None and self.headers["Authorization"] != f"Bearer {self.server.token}":
            self._answer(401, {"code": "unauthorized", "detail": "This token is none of ours."})
        elif self.path == "/limits":
            self.server.on_limits()
            self._answer(200, LIMITS)
        else:
            batch_id = self.path.split("/")[2].split("?")[0]
            total = next(answer["total"] for _, answer in self.server.kept.values() if answer["batch_id"] == batch_id)
            done = self.server.finished
            image: dict[str, Any] = {"status": "done" if done else "queued", "detections": [], "error": None}
            self._answer(200, {"images": [image] * total, "finished_at": "now" if done else None})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        environ = {"wsgi.input": BytesIO(body), "CONTENT_TYPE": self.headers["Content-Type"], "CONTENT_LENGTH": str(len(body)), "REQUEST_METHOD": "POST"}
        _, form, parts = parse_form_data(environ, silent=False)
        uploaded = parts.getlist("file")
        files = [part.read() for part in uploaded]
        request = Request(self.headers["Idempotency-Key"], [str(part.filename) for part in uploaded], json.loads(form["metadata"]), time.monotonic())
        for part in uploaded:
            part.close()
        with self.server.lock:
            self.server.requests.append(request)
            say = self.server.script.pop(0) if self.server.script else None
        if say is None:
            digest = hashlib.sha256(repr((request.metadata, files)).encode()).hexdigest()
            status, said = self.server.take(request, digest, files)
            assert self.server.answering.wait(PATIENCE_S)
            self._answer(status, said)
        elif say.status is None:
            self.close_connection = True
        else:
            self._answer(say.status, {"code": say.code, "detail": "As the test says."}, say.headers)

    def _answer(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True  # the client was killed

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name is the base class's
        pass


@contextmanager
def serving() -> Iterator[Peer]:
    """Serve until the end of the block."""
    server = Peer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.answering.set()
        server.shutdown()
        server.server_close()
        thread.join()
