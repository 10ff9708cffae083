"""nginx serves finished files by itself, in the web's own words."""

import json
import random
import socket
import time
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest

from scripts.containers.engine import Deployment
from tests.containers.oracle import wait_until_finished
from tests.faults.images import UploadImage, draw_valid_image
from tests.faults.upload_load import UploadLoad
from tests.support.service_stack import wait_until

_REQUEST_WEB: Final = """
import http.client, json, sys
method, path, headers = json.loads(sys.argv[1])
asked = http.client.HTTPConnection("127.0.0.1", 5000, timeout=10)
asked.request(method, path, headers={"Host": "localhost"} | headers)
answer = asked.getresponse()
body = answer.read()
print(json.dumps([answer.status, {name.lower(): value for name, value in answer.getheaders()}, body.hex()]))
"""
_SERVER_HEADERS: Final = {"server", "date", "connection", "x-request-id", "transfer-encoding", "keep-alive"}


class ResponseComparison:
    """The same request put to nginx and to a web replica behind it."""

    def __init__(self, client: httpx.Client, deployment: Deployment) -> None:
        self._client, self._deployment = client, deployment
        self._web = deployment.containers("web")[0]

    def both(self, method: str, path: str, **headers: str) -> tuple[Any, Any]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        there = self._client.request(method, path, headers={"Accept-Encoding": "identity"} | given)
        status, said, body = json.loads(self._deployment.execute(self._web, "python", "-c", _REQUEST_WEB, json.dumps([method, path, given])))
        return self._told(there.status_code, dict(there.headers), there.content), self._told(status, said, bytes.fromhex(body))

    @staticmethod
    def _told(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        unsaid = _SERVER_HEADERS | {206: {"accept-ranges"}, 304: {"accept-ranges", "last-modified"}}.get(status, set())  # nobody needs them there
        return status, {name.lower(): value for name, value in headers.items() if name.lower() not in unsaid}, body


@pytest.fixture(scope="module")
def images(url: str, deployment: Deployment) -> dict[str, str]:
    """Upload a JPEG, a PNG and a broken JPEG; give their ids, once all are finished."""
    source = random.Random(41)
    jpeg = next(one for one in iter(lambda: draw_valid_image(source), None) if one.extension == "jpg")
    png = next(one for one in iter(lambda: draw_valid_image(source), None) if one.extension == "png")
    broken = UploadImage(jpeg.data[: len(jpeg.data) // 2], "jpg", "truncated")
    sent = UploadLoad(url, 1, lambda: 0).send([jpeg, png, broken])
    with httpx.Client(base_url=url, timeout=30) as client:
        batch = wait_until_finished(client, sent.batch_id)
    assert [image["status"] for image in batch["images"]] == ["done", "done", "failed"]
    return dict(zip(("jpeg", "png", "broken"), (image["id"] for image in batch["images"]), strict=True))


@pytest.fixture
def asked(client: httpx.Client, deployment: Deployment) -> ResponseComparison:
    return ResponseComparison(client, deployment)


def test_finished_files_are_served_while_no_web_process_runs(images: dict[str, str], client: httpx.Client, deployment: Deployment) -> None:
    paths = [
        f"/uploads/{images['jpeg']}.jpg",
        f"/uploads/{images['png']}.png",
        f"/uploads/{images['png']}.jpg",
        f"/uploads/{images['jpeg']}/thumb.jpg",
        f"/uploads/{images['jpeg']}/horizontal_flip.jpg",
    ]
    deployment.compose("pause", "web")
    try:
        answers = [client.get(path, timeout=5) for path in paths]
    finally:
        deployment.compose("unpause", "web")
    assert [(answer.status_code, answer.headers["content-type"]) for answer in answers] == [
        (200, "image/jpeg"),
        (200, "image/png"),
        (200, "image/jpeg"),
        (200, "image/jpeg"),
        (200, "image/jpeg"),
    ]


@pytest.mark.parametrize("path", ["/uploads/{jpeg}.jpg", "/uploads/{png}.png", "/uploads/{png}.jpg", "/uploads/{jpeg}/thumb.jpg", "/uploads/{jpeg}/boxes.jpg"])
def test_both_say_the_same_of_a_file(path: str, images: dict[str, str], asked: ResponseComparison) -> None:
    path = path.format(**images)
    nginx, web = asked.both("GET", path)
    assert nginx == web
    etag, modified = web[1]["etag"], web[1]["last-modified"]
    for method, headers in (
        ("HEAD", {}),
        ("GET", {"If_None_Match": etag}),
        ("GET", {"If_None_Match": "*"}),
        ("GET", {"If_None_Match": '"another"'}),
        ("GET", {"If_Modified_Since": modified}),
        ("GET", {"Range": "bytes=0-99"}),
        ("GET", {"Range": "bytes=100-"}),
        ("GET", {"Range": "bytes=-50"}),
        ("GET", {"Range": "bytes=5-9"}),
        ("GET", {"Range": "bytes=5-2"}),
        ("GET", {"Range": "bytes=nonsense"}),
        ("GET", {"Range": "bytes=0-9,20-29"}),
        ("HEAD", {"Range": "bytes=0-99"}),
        ("GET", {"Range": "bytes=0-99", "If_Range": etag}),
        ("GET", {"Range": "bytes=0-99", "If_Range": '"another"'}),
    ):
        nginx, web = asked.both(method, path, **headers)
        assert nginx == web, (method, headers)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "/uploads/{jpeg}.jpg", {"Range": "bytes=99999999-"}, 416, "range_not_satisfiable"),
        ("GET", "/uploads/{png}.jpg", {"Range": "bytes=99999999-"}, 416, "range_not_satisfiable"),
        ("GET", "/uploads/{jpeg}/thumb.jpg", {"Range": "bytes=-0"}, 416, "range_not_satisfiable"),
        ("GET", "/uploads/{jpeg}.jpg", {"If-Match": '"another"'}, 412, "precondition_failed"),
        ("GET", "/uploads/{jpeg}.jpg", {"Authorization": "Bearer x"}, 401, "unauthorized"),
        ("GET", "/uploads/{jpeg}.jpg", {"Host": "evil.example"}, 421, "misdirected_request"),
        ("POST", "/uploads/{jpeg}.jpg", {}, 405, "method_not_allowed"),
        ("PUT", "/uploads/{jpeg}/thumb.jpg", {}, 405, "method_not_allowed"),
        ("GET", "/uploads/{jpeg}.png", {}, 404, "not_found"),
        ("GET", "/uploads/{jpeg}/rotate_by_hand.jpg", {}, 404, "not_found"),
        ("GET", "/uploads/{png}/rendition.jpg", {}, 404, "not_found"),
        ("GET", "/uploads/{broken}/thumb.jpg", {}, 404, "image_failed"),
        ("GET", "/uploads/{jpeg}.jpg", {"If-Unmodified-Since": "Wed, 01 Jan 2020 00:00:00 GMT"}, 412, "precondition_failed"),
        ("GET", "/uploads/%2e%2e/%2e%2e/etc/passwd", {}, 400, "bad_request"),
        ("GET", "/uploads/%2e%2e/limits%2f", {}, 404, "not_found"),
    ],
)
def test_what_is_refused_is_a_problem_document(
    method: str, path: str, headers: dict[str, str], status: int, code: str, images: dict[str, str], client: httpx.Client
) -> None:
    answer = client.request(method, path.format(**images), headers=headers)
    assert len(answer.headers.get_list("content-range")) == (status == 416)
    assert (answer.status_code, answer.headers["content-type"], answer.json()["code"]) == (status, "application/problem+json", code)


def test_the_original_of_a_failed_image_is_an_attachment(images: dict[str, str], client: httpx.Client) -> None:
    answer = client.get(f"/uploads/{images['broken']}.jpg")
    assert (answer.status_code, answer.headers["content-disposition"].partition(";")[0]) == (200, "attachment")


def test_a_picture_that_waits_is_pending_and_a_deleted_one_is_gone(url: str, client: httpx.Client, deployment: Deployment) -> None:
    workers = deployment.containers("worker")
    for worker in workers:
        deployment.manage("pause", worker)
    try:
        sent = UploadLoad(url, 2, lambda: 0).send([draw_valid_image(random.Random(42))])
        image_id = client.get(f"/image_batches/{sent.batch_id}").json()["images"][0]["id"]
        answer = client.get(f"/uploads/{image_id}/thumb.jpg")
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (404, "image_pending", "2")
    finally:
        for worker in workers:
            deployment.manage("unpause", worker)
    wait_until_finished(client, sent.batch_id)
    wait_until(lambda: client.get(f"/uploads/{image_id}/thumb.jpg").status_code == 200, 30, "the thumbnail is there")
    assert client.delete(f"/image_batches/{sent.batch_id}").status_code == 204
    assert client.get(f"/uploads/{image_id}/thumb.jpg").status_code == 404


def test_json_is_compressed_and_requests_keep_their_id(client: httpx.Client) -> None:
    listed = client.get("/image_batches", params={"per_page": 100}, headers={"Accept-Encoding": "gzip", "X-Request-ID": "of-the-caller"})
    assert (listed.headers["content-encoding"], listed.headers["x-request-id"]) == ("gzip", "of-the-caller")
    assert client.get("/healthz", headers={"X-Request-ID": "not sane"}).headers["x-request-id"] != "not sane"


def test_a_client_cannot_give_itself_an_address(client: httpx.Client, deployment: Deployment) -> None:
    request_id = f"address-{time.time_ns()}"
    client.get("/limits", headers={"X-Forwarded-For": "203.0.113.9", "X-Request-ID": request_id})

    def lines() -> list[str]:
        return [line for line in deployment.compose("logs", "--no-color", "--no-log-prefix", "--tail", "200", "web").splitlines() if request_id in line]

    wait_until(lines, 10, "the web logs the request")
    assert {json.loads(line[line.index("{") :])["client"] for line in lines()} == {network_of(deployment, "nginx")["Gateway"]}


def network_of(deployment: Deployment, service: str) -> dict[str, str]:
    """Give what the engine knows of a container on the network in front."""
    networks: dict[str, dict[str, str]] = deployment.inspect(deployment.containers(service)[0])["NetworkSettings"]["Networks"]
    return next(network for name, network in networks.items() if name.endswith("_front"))


def test_both_replicas_are_asked(client: httpx.Client, deployment: Deployment) -> None:
    mark = f"replica-{time.time_ns()}"
    for number in range(40):
        client.get("/limits", headers={"X-Request-ID": f"{mark}-{number}"})

    def replicas() -> int:
        return sum(mark in deployment.manage("logs", container) for container in deployment.containers("web"))

    wait_until(lambda: replicas() == 2, 10, "both have answered some")


def test_without_a_web_everything_is_refused_in_words_but_what_is_done(images: dict[str, str], client: httpx.Client, deployment: Deployment) -> None:
    deployment.compose("stop", "web")
    try:
        for path in ("/limits", f"/uploads/{images['broken']}/thumb.jpg", f"/uploads/{images['broken']}.jpg"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["content-type"], answer.json()["code"]) == (502, "application/problem+json", "no_answer"), path
            assert answer.headers["retry-after"] == "2"
        answer = client.post("/upload_image_batch", json=[])
        assert (answer.status_code, answer.json()["code"]) == (502, "no_answer")
        assert client.get(f"/uploads/{images['jpeg']}.jpg").status_code == 200
    finally:
        deployment.compose("up", "--detach", "--no-deps", "--wait", "web", limit_s=120)


def test_the_request_line_names_the_host(url: str, images: dict[str, str]) -> None:
    at = urlsplit(url)
    path = f"/uploads/{images['jpeg']}.jpg"
    for target, host, status in ((f"http://evil.example{path}", "localhost", b"421"), (f"http://localhost{path}", "evil.example", b"200"), (path, "localhost", b"200")):
        with socket.create_connection((str(at.hostname), int(at.port or 80)), timeout=10) as connection:
            connection.sendall(f"HEAD {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            assert connection.makefile("rb").readline().split()[1] == status, target
