"""A service on loopback that handles Idempotency-Keys as the API does; a test can script it to delay, refuse or drop requests."""

import base64
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
    """A received upload: its key, the names of its images, their metadata, and the time (monotonic seconds)."""

    key: str
    names: list[str]
    metadata: list[dict[str, Any]]
    at: float
    is_intact: bool
    """Whether the body is that of its Content-Digest."""


@dataclass
class Reply:
    """A response that is sent instead of the usual one."""

    status: int | None
    """None closes the connection without a response."""
    code: str = "unavailable"
    headers: dict[str, str] = field(default_factory=dict)
    members: dict[str, Any] = field(default_factory=dict)
    """Further members of the problem document."""


class ScriptedService(ThreadingHTTPServer):
    """Accepts images whose bytes do not begin with ``bad``; the same request with the same key gets the same response."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[Request] = []
        self.stored: list[str] = []
        """Names of the accepted images, each as often as it was accepted."""
        self.responses: dict[str, tuple[str, dict[str, Any]]] = {}
        self.digests: dict[str, dict[int, str]] = {}
        """The SHA-256 digests of the accepted images of each batch, by their indexes."""
        self.script: list[Reply | None] = []
        """The responses to the next uploads, one each; None sends the usual response."""
        self.on_limits: Callable[[], None] = lambda: None
        self.api_key: str | None = None
        """The only valid API key; if it is None, access is open."""
        self.scopes = {"images:read", "images:upload"}
        """The scopes of this key."""
        self.stores: set[str] | None = None
        """The stores of this key; None means all stores."""
        self.finished = True
        self.answering = threading.Event()
        """While cleared, uploads are accepted, but not answered."""
        self.answering.set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Address of this service."""
        return f"http://127.0.0.1:{self.server_port}"

    def wait_for(self, count: int) -> None:
        """Wait until ``count`` uploads have been received."""
        until = time.monotonic() + PATIENCE_S
        while len(self.requests) < count:
            assert time.monotonic() < until, f"{len(self.requests)} uploads were received, not {count}"
            time.sleep(0.01)

    def refuse(self, authorization: str | None, scope: str | None) -> tuple[int, dict[str, Any]] | None:
        """Return the status and the body of a refusal if the credentials are invalid or lack the scope (None: the operation is public)."""
        if self.api_key is None or (scope is None and authorization is None):
            return None
        if authorization != f"Bearer {self.api_key}":
            return 401, {"code": "unauthorized", "detail": "These credentials are invalid."}
        if scope is not None and scope not in self.scopes:
            return 403, {"code": "missing_scope", "detail": "A scope is missing.", "scope": scope}
        return None

    def accept(self, request: Request, digest: str, files: list[bytes]) -> tuple[int, dict[str, Any]]:
        """Accept an upload as the API does.

        :returns: status and body of the response.
        """
        with self.lock:
            if request.key in self.responses:
                accepted_digest, response = self.responses[request.key]
                return (202, response) if accepted_digest == digest else (422, {"code": "idempotency_mismatch", "detail": "Another request."})
            images: list[dict[str, Any]] = []
            for index, (name, data) in enumerate(zip(request.names, files, strict=True)):
                images.append({"index": index, "status": "queued", "name": name})
                if data.startswith(b"bad"):
                    error = {"pointer": f"/{index}/file", "code": "unsupported_format", "detail": "Not an image."}
                    images[index] = {"index": index, "status": "rejected", "errors": [error]}
                elif self.stores is not None and request.metadata[index]["store_name"] not in self.stores:
                    error = {"pointer": f"/{index}/store_name", "code": "foreign_store", "detail": "Another store."}
                    images[index] = {"index": index, "status": "rejected", "errors": [error]}
            accepted: list[str] = [image["name"] for image in images if image["status"] == "queued"]
            if not accepted:
                return 422, {"code": "invalid", "detail": "No valid image.", "errors": [image["errors"][0] for image in images]}
            self.stored += accepted
            response = {"batch_id": f"b{len(self.responses)}", "total": len(accepted), "images": images}
            self.responses[request.key] = (digest, response)
            self.digests[response["batch_id"]] = {
                image["index"]: hashlib.sha256(files[image["index"]]).hexdigest() for image in images if image["status"] == "queued"
            }
            return 202, response


class Handler(BaseHTTPRequestHandler):
    server: ScriptedService

    def do_GET(self) -> None:
        refusal = self.server.refuse(self.headers["Authorization"], None if self.path == "/limits" else "images:read")
        if refusal is not None:
            self._respond(*refusal)
        elif self.path == "/limits":
            self.server.on_limits()
            self._respond(200, LIMITS)
        else:
            batch_id = self.path.split("/")[2].split("?")[0]
            total = next(response["total"] for _, response in self.server.responses.values() if response["batch_id"] == batch_id)
            done = self.server.finished
            if self.path.endswith("/receipt"):
                stored = [{"index": index, "sha256": sha256, "status": "done" if done else "queued"} for index, sha256 in self.server.digests[batch_id].items()]
                self._respond(200, {"batch_id": batch_id, "images": stored, "balance": {}, "signature": {}})
                return
            image: dict[str, Any] = {"status": "done" if done else "queued", "detections": [], "error": None}
            self._respond(200, {"images": [image] * total, "finished_at": "now" if done else None})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        environ = {"wsgi.input": BytesIO(body), "CONTENT_TYPE": self.headers["Content-Type"], "CONTENT_LENGTH": str(len(body)), "REQUEST_METHOD": "POST"}
        _, form, parts = parse_form_data(environ, silent=False)
        uploaded = parts.getlist("file")
        files = [part.read() for part in uploaded]
        is_intact = self.headers["Content-Digest"] == f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"
        names = [str(part.filename) for part in uploaded]
        request = Request(self.headers["Idempotency-Key"], names, json.loads(form["metadata"]), time.monotonic(), is_intact)
        for part in uploaded:
            part.close()
        with self.server.lock:
            self.server.requests.append(request)
            reply = self.server.script.pop(0) if self.server.script else None
        refusal = self.server.refuse(self.headers["Authorization"], "images:upload")
        if refusal is not None:
            self._respond(*refusal)
        elif reply is None:
            digest = hashlib.sha256(repr((request.metadata, files)).encode()).hexdigest()
            status, response = self.server.accept(request, digest, files)
            assert self.server.answering.wait(PATIENCE_S)
            self._respond(status, response)
        elif reply.status is None:
            self.close_connection = True
        else:
            self._respond(reply.status, {"code": reply.code, "detail": "Scripted by the test.", **reply.members}, reply.headers)

    def _respond(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
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

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's parameter name
        pass


@contextmanager
def serving() -> Iterator[ScriptedService]:
    """Serve until the end of the ``with`` block."""
    server = ScriptedService()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.answering.set()
        server.shutdown()
        server.server_close()
        thread.join()
