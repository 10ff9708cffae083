"""Requests to the service on this machine do not go through a proxy."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from scripts.local import loopback, start


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"checks": {"redis": {"ok": false, "detail": "away"}, "mongodb": {"ok": true}}}'
        self.send_response(503 if self.path == "/readyz" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's parameter name
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "nonsense", "http://user:pass@proxy.invalid:1"]
)
def test_a_proxy_in_the_environment_is_not_used(url: str, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with loopback.open_url(f"{url}/image_batches/x", 30) as response:
        assert response.status == 200
    assert start.failed_checks(url) == {"redis": "away"}
