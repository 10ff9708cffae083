"""nginx refuses an upload before its body if a web process would refuse it for its credentials."""

import json
import socket
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shared import settings
from tests.integration.deploy.nginx_deployment import (
    ACCESS,
    NEEDS_NGINX,
    Deployment,
    begin_upload,
    derived_keys,
    read_answer,
    request,
)
from tests.support.accounts import SIGNING_KEYS, bearer, make_key
from tests.support.gunicorn_front import run_web_front
from tests.support.nginx_front import TRUSTS_NGINX, Mounted, run_nginx
from tests.support.web_client import image_payload

pytestmark = NEEDS_NGINX
UPLOADS = ["/upload_image_batch", "/images", "/img"]
SLOW_CLIENTS = 200


@pytest.mark.parametrize("path", UPLOADS)
@pytest.mark.parametrize("credentials", ["none", "an unknown key", "a key without the scope"])
def test_an_upload_is_refused_before_its_body_as_by_the_web_process(deployment: Deployment, path: str, credentials: str) -> None:
    keys = {"an unknown key": "nobody", "a key without the scope": make_key(deployment.database, None, scopes=["metrics:read"])}
    headers = {} if credentials == "none" else bearer(keys[credentials])
    with ExitStack() as stack:
        # nginx asks for the body with `100 Continue` if it wants it, which HTTPResponse skips
        client = begin_upload(stack, deployment.nginx.port, path, 1_000_000, Expect="100-continue", **headers)
        assert client.recv(13, socket.MSG_PEEK | socket.MSG_WAITALL) == (b"HTTP/1.1 403 " if "scope" in credentials else b"HTTP/1.1 401 ")
        refused = read_answer(client)
        of_web = read_answer(begin_upload(stack, deployment.web.port, path, 2, b"[]", **headers))
    assert refused.comparable() == of_web.comparable()
    assert json.loads(refused.body)["instance"] == path


def test_a_permitted_upload_is_asked_for_its_body(deployment: Deployment) -> None:
    body = json.dumps([image_payload()]).encode()
    headers = bearer(make_key(deployment.database, "uploader"))
    with ExitStack() as stack:
        client = begin_upload(stack, deployment.nginx.port, "/upload_image_batch", len(body), Expect="100-continue", **headers)
        assert client.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert read_answer(client).status == 202


def test_one_image_is_accepted_and_the_list_at_its_path_is_no_upload(deployment: Deployment) -> None:
    body = json.dumps(image_payload()).encode()
    with ExitStack() as stack:
        for port in (deployment.nginx.port, deployment.web.port):
            key = bearer(make_key(deployment.database, "uploader"))
            assert read_answer(begin_upload(stack, port, "/images", len(body), body, **key)).status == 202
    # A list, and a page to sign in for a browser, pass as they come from the web process, and so do their errors.
    for path in ("/images", "/images?page=0"):
        for headers in ({}, {"Accept": "text/html"}, bearer(make_key(deployment.database))):
            of_nginx, of_web = (request(port, path, **headers) for port in (deployment.nginx.port, deployment.web.port))
            assert (of_nginx.status, of_nginx.headers["content-type"]) == (of_web.status, of_web.headers["content-type"])
            assert of_nginx.status in {200, 302, 303, 401, 405, 422}


def test_a_client_cannot_ask_the_web_process_for_a_check(deployment: Deployment) -> None:
    body = json.dumps([image_payload()]).encode()
    headers = bearer(make_key(deployment.database, "uploader")) | {"X-Upload-Check": "1"}
    with ExitStack() as stack:
        assert read_answer(begin_upload(stack, deployment.nginx.port, "/upload_image_batch", len(body), body, **headers)).status == 202
        assert request(deployment.nginx.port, "/upload_check").status == 404


def test_an_upload_while_no_web_process_runs_is_told_so_before_its_body(deployment: Deployment) -> None:
    with ExitStack() as stack:
        answer = read_answer(begin_upload(stack, deployment.alone.port, "/upload_image_batch", 1_000_000))
    assert (answer.status, json.loads(answer.body)["code"]) == (502, "no_answer")


def test_an_upload_is_told_that_its_credentials_cannot_be_checked(database: settings.Mongo, deployment: Deployment, tmp_path: Path) -> None:
    headers = bearer(make_key(deployment.database))
    away = {"MONGODB_URL": "mongodb://127.0.0.1:1/?replicaSet=away", "MONGODB_SERVER_SELECTION_TIMEOUT_S": "0.2"}
    with run_web_front(database, tmp_path, **away, **ACCESS, **TRUSTS_NGINX) as web, run_nginx(web.port, Mounted(keys=derived_keys(SIGNING_KEYS)), ACCESS="on") as nginx, ExitStack() as stack:
        refused = read_answer(begin_upload(stack, nginx.port, "/upload_image_batch", 1_000_000, **headers))
        of_web = read_answer(begin_upload(stack, web.port, "/upload_image_batch", 2, b"[]", **headers))
    assert refused.comparable() == of_web.comparable()
    assert (refused.status, json.loads(refused.body)["code"]) == (503, "database_unavailable")


TOO_LARGE: dict[str, tuple[int, str, dict[str, str]]] = {
    "a header": (431, "", {"X-Long": "a" * 9000}),
    "headers": (431, "", {f"X-Header-{number}": "a" for number in range(120)}),
    "a query": (414, f"?page={'a' * 9000}", {}),
    "the address of an image": (414, f"?http://{'a' * 9000}", {}),
}
"""For each part of a head that is too large for a web process: the status, the query, and the headers."""


@pytest.mark.parametrize("path", UPLOADS)
@pytest.mark.parametrize("part", TOO_LARGE)
def test_an_upload_whose_head_is_too_large_is_refused_by_the_web_process_before_its_body(deployment: Deployment, path: str, part: str) -> None:
    status, query, headers = TOO_LARGE[part]
    for credentials in (bearer(make_key(deployment.database)), {}):
        with ExitStack() as stack:
            refused = read_answer(begin_upload(stack, deployment.nginx.port, path + query, 900_000, bytes(70_000), **credentials, **headers))
            assert deployment.nginx.buffered_bytes() == []
            of_web = read_answer(begin_upload(stack, deployment.web.port, path + query, 2, b"[]", **credentials, **headers))
        assert refused.status == status
        assert json.loads(refused.body) | {"request_id": ""} == json.loads(of_web.body) | {"request_id": ""}
        assert "retry-after" not in refused.headers


class WithoutCheck(BaseHTTPRequestHandler):
    """A web process of a version without the check: it handles the request for a check as an upload without a body."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Accept a body, and refuse a request without one."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.send_response(202 if body else int(self.headers["X-Status"]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write nothing."""


def test_an_upload_is_passed_on_if_the_web_process_does_not_know_the_check() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), WithoutCheck) as server, ExitStack() as stack:
        stack.callback(server.shutdown)
        threading.Thread(target=server.serve_forever).start()
        nginx = stack.enter_context(run_nginx(server.server_port, Mounted(keys=derived_keys(SIGNING_KEYS)), ACCESS="on"))
        for status in ("303", "400", "401", "403", "415", "422", "500"):
            assert {read_answer(begin_upload(stack, nginx.port, path, 70_000, bytes(70_000), **{"X-Status": status})).status for path in UPLOADS} == {202}


def test_slow_uploads_without_credentials_take_no_space_and_refuse_nobody(deployment: Deployment) -> None:
    body = json.dumps([image_payload()]).encode()
    body += b" " * (900_000 - len(body))
    headers = bearer(make_key(deployment.database, "uploader"))
    with ExitStack() as stack:
        slow = [begin_upload(stack, deployment.nginx.port, UPLOADS[number % len(UPLOADS)], 900_000, bytes(70_000)) for number in range(SLOW_CLIENTS)]
        assert read_answer(begin_upload(stack, deployment.nginx.port, "/upload_image_batch", len(body), body, **headers)).status == 202
        assert {read_answer(client).status for client in slow} == {401}
        assert deployment.nginx.buffered_bytes() == []
