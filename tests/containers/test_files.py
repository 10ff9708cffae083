"""nginx serves finished files without the web process, with the same responses as the web process."""

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
connection = http.client.HTTPConnection("127.0.0.1", 5000, timeout=10)
connection.request(method, path, headers={"Host": "localhost"} | headers)
response = connection.getresponse()
body = response.read()
print(json.dumps([response.status, {name.lower(): value for name, value in response.getheaders()}, body.hex()]))
"""
_SERVER_HEADERS: Final = {"server", "date", "connection", "x-request-id", "transfer-encoding", "keep-alive", "referrer-policy"}


class ResponseComparison:
    """Sends the same request to nginx and to a web replica behind it."""

    def __init__(self, client: httpx.Client, deployment: Deployment) -> None:
        self._client, self._deployment = client, deployment
        self._web = deployment.containers("web")[0]

    def both(self, method: str, path: str, **headers: str) -> tuple[Any, Any]:
        request_headers = {name.replace("_", "-"): value for name, value in headers.items()}
        response = self._client.request(method, path, headers={"Accept-Encoding": "identity"} | request_headers)
        status, headers_of_web, body = json.loads(self._deployment.execute(self._web, "python", "-c", _REQUEST_WEB, json.dumps([method, path, request_headers])))
        return (
            self._comparable(response.status_code, dict(response.headers), response.content),
            self._comparable(status, headers_of_web, bytes.fromhex(body)),
        )

    @staticmethod
    def _comparable(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        # nginx and the web process may differ in headers that no client needs for this status.
        ignored = _SERVER_HEADERS | {206: {"accept-ranges"}, 304: {"accept-ranges", "last-modified"}}.get(status, set())
        return status, {name.lower(): value for name, value in headers.items() if name.lower() not in ignored}, body


@pytest.fixture(scope="module")
def images(url: str, deployment: Deployment) -> dict[str, str]:
    """Upload a JPEG, a PNG and a broken JPEG, wait until all are finished, and return their ids."""
    generator = random.Random(41)
    jpeg = next(image for image in iter(lambda: draw_valid_image(generator), None) if image.extension == "jpg")
    png = next(image for image in iter(lambda: draw_valid_image(generator), None) if image.extension == "png")
    broken = UploadImage(jpeg.data[: len(jpeg.data) // 2], "jpg", "truncated")
    accepted = UploadLoad(url, 1, lambda: 0).send([jpeg, png, broken])
    with httpx.Client(base_url=url, timeout=30) as client:
        batch = wait_until_finished(client, accepted.batch_id)
    assert [image["status"] for image in batch["images"]] == ["done", "done", "failed"]
    return dict(zip(("jpeg", "png", "broken"), (image["id"] for image in batch["images"]), strict=True))


@pytest.fixture
def comparison(client: httpx.Client, deployment: Deployment) -> ResponseComparison:
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
        responses = [client.get(path, timeout=5) for path in paths]
    finally:
        deployment.compose("unpause", "web")
    assert [(response.status_code, response.headers["content-type"]) for response in responses] == [
        (200, "image/jpeg"),
        (200, "image/png"),
        (200, "image/jpeg"),
        (200, "image/jpeg"),
        (200, "image/jpeg"),
    ]


@pytest.mark.parametrize("path", ["/uploads/{jpeg}.jpg", "/uploads/{png}.png", "/uploads/{png}.jpg", "/uploads/{jpeg}/thumb.jpg", "/uploads/{jpeg}/boxes.jpg"])
def test_nginx_and_the_web_process_return_the_same_response_for_a_file(path: str, images: dict[str, str], comparison: ResponseComparison) -> None:
    path = path.format(**images)
    nginx, web = comparison.both("GET", path)
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
        nginx, web = comparison.both(method, path, **headers)
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
def test_a_rejected_request_is_answered_with_a_problem_document(
    method: str, path: str, headers: dict[str, str], status: int, code: str, images: dict[str, str], client: httpx.Client
) -> None:
    response = client.request(method, path.format(**images), headers=headers)
    assert len(response.headers.get_list("content-range")) == (status == 416)
    assert (response.status_code, response.headers["content-type"], response.json()["code"]) == (status, "application/problem+json", code)


def test_the_original_of_a_failed_image_is_an_attachment(images: dict[str, str], client: httpx.Client) -> None:
    response = client.get(f"/uploads/{images['broken']}.jpg")
    assert (response.status_code, response.headers["content-disposition"].partition(";")[0]) == (200, "attachment")


def test_the_files_of_a_queued_image_are_pending_and_those_of_a_deleted_image_are_gone(url: str, client: httpx.Client, deployment: Deployment) -> None:
    workers = deployment.containers("worker")
    for worker in workers:
        deployment.manage("pause", worker)
    try:
        batch = UploadLoad(url, 2, lambda: 0).send([draw_valid_image(random.Random(42))])
        image_id = client.get(f"/image_batches/{batch.batch_id}").json()["images"][0]["id"]
        response = client.get(f"/uploads/{image_id}/thumb.jpg")
        assert (response.status_code, response.json()["code"], response.headers["retry-after"]) == (404, "image_pending", "2")
    finally:
        for worker in workers:
            deployment.manage("unpause", worker)
    wait_until_finished(client, batch.batch_id)
    wait_until(lambda: client.get(f"/uploads/{image_id}/thumb.jpg").status_code == 200, 30, "the thumbnail exists")
    assert client.delete(f"/image_batches/{batch.batch_id}").status_code == 204
    assert client.get(f"/uploads/{image_id}/thumb.jpg").status_code == 404


def test_json_is_compressed_and_a_valid_request_id_is_kept(client: httpx.Client) -> None:
    listed = client.get("/image_batches", params={"per_page": 100}, headers={"Accept-Encoding": "gzip", "X-Request-ID": "from-the-client"})
    assert (listed.headers["content-encoding"], listed.headers["x-request-id"]) == ("gzip", "from-the-client")
    assert client.get("/healthz", headers={"X-Request-ID": "not valid"}).headers["x-request-id"] != "not valid"


def test_a_client_cannot_forge_its_address(client: httpx.Client, deployment: Deployment) -> None:
    request_id = f"address-{time.time_ns()}"
    client.get("/limits", headers={"X-Forwarded-For": "203.0.113.9", "X-Request-ID": request_id})

    def lines() -> list[str]:
        return [line for line in deployment.compose("logs", "--no-color", "--no-log-prefix", "--tail", "200", "web").splitlines() if request_id in line]

    wait_until(lines, 10, "the web process logs the request")
    assert {json.loads(line[line.index("{") :])["client"] for line in lines()} == {network_of(deployment, "nginx")["Gateway"]}


def network_of(deployment: Deployment, service: str) -> dict[str, str]:
    """Return the engine's description of a container on the network between nginx and the web replicas."""
    networks: dict[str, dict[str, str]] = deployment.inspect(deployment.containers(service)[0])["NetworkSettings"]["Networks"]
    return next(network for name, network in networks.items() if name.endswith("_front"))


def test_requests_are_distributed_to_both_replicas(client: httpx.Client, deployment: Deployment) -> None:
    prefix = f"replica-{time.time_ns()}"
    for number in range(40):
        client.get("/limits", headers={"X-Request-ID": f"{prefix}-{number}"})

    def replicas() -> int:
        return sum(prefix in deployment.manage("logs", container) for container in deployment.containers("web"))

    wait_until(lambda: replicas() == 2, 10, "both replicas have served requests")


def test_without_a_web_process_finished_files_are_served_and_other_requests_get_a_problem_document(images: dict[str, str], client: httpx.Client, deployment: Deployment) -> None:
    deployment.compose("stop", "web")
    try:
        for path in ("/limits", f"/uploads/{images['broken']}/thumb.jpg", f"/uploads/{images['broken']}.jpg"):
            response = client.get(path)
            assert (response.status_code, response.headers["content-type"], response.json()["code"]) == (502, "application/problem+json", "no_answer"), path
            assert response.headers["retry-after"] == "2"
        response = client.post("/upload_image_batch", json=[])
        assert (response.status_code, response.json()["code"]) == (502, "no_answer")
        assert client.get(f"/uploads/{images['jpeg']}.jpg").status_code == 200
    finally:
        deployment.compose("up", "--detach", "--no-deps", "--wait", "web", limit_s=120)


def test_the_host_of_an_absolute_request_target_overrides_the_host_header(url: str, images: dict[str, str]) -> None:
    address = urlsplit(url)
    path = f"/uploads/{images['jpeg']}.jpg"
    for target, host, status in ((f"http://evil.example{path}", "localhost", b"421"), (f"http://localhost{path}", "evil.example", b"200"), (path, "localhost", b"200")):
        with socket.create_connection((str(address.hostname), int(address.port or 80)), timeout=10) as connection:
            connection.sendall(f"HEAD {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            assert connection.makefile("rb").readline().split()[1] == status, target
