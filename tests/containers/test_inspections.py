"""Inspections through nginx: uploaded images, and internal addresses that the inspector must not fetch from."""

import random
from typing import Any

import httpx
import pytest

from scripts.containers.engine import Deployment
from tests.faults.images import draw_valid_image


def wait_for_result(client: httpx.Client, response: httpx.Response) -> httpx.Response:
    """Follow the Location of 202 responses until the inspection is finished, and return the last response."""
    for _ in range(6):
        if response.status_code != 202:
            return response
        response = client.get(response.headers["Location"], params={"wait": 30}, timeout=40)
    raise AssertionError("the inspection is not finished after three minutes")


def test_an_uploaded_image_is_described_and_shown(client: httpx.Client) -> None:
    image = draw_valid_image(random.Random(5))
    response = wait_for_result(client, client.post("/img", files={"file": image.data}))
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()
    assert result["sha256"] == image.sha256
    shown = client.get(httpx.URL(result["url"]).path)
    assert (shown.status_code, shown.headers["content-type"], shown.headers["x-content-type-options"]) == (200, "image/jpeg", "nosniff")
    assert shown.content.startswith(b"\xff\xd8")


def test_an_image_that_is_too_large_is_rejected_with_the_limit(client: httpx.Client) -> None:
    max_bytes = 4 * 1024 * 1024
    slightly_too_large = client.post("/img", content=b"\xff\xd8\xff" + bytes(max_bytes), headers={"Content-Type": "image/jpeg"})
    assert (slightly_too_large.status_code, slightly_too_large.json()["code"], slightly_too_large.json()["value"]) == (413, "source_too_large", max_bytes)
    far_too_large = client.post("/img", content=b"\xff\xd8\xff" + bytes(2 * max_bytes), headers={"Content-Type": "image/jpeg"})
    assert (far_too_large.status_code, far_too_large.json()["code"], far_too_large.json()["value"]) == (413, "source_too_large", max_bytes)


@pytest.mark.parametrize("host", ["mongodb", "redis", "nginx", "web", "localhost", "host.docker.internal"])
def test_no_host_name_of_the_deployment_is_fetched_from(host: str, client: httpx.Client) -> None:
    response = wait_for_result(client, client.post("/img", json={"url": f"http://{host}/a.jpg"}))
    assert (response.status_code, response.json()["code"]) == (422, "blocked_host")


def test_no_address_of_the_deployment_is_fetched_from(client: httpx.Client, deployment: Deployment) -> None:
    internal = {
        network["IPAddress"]
        for service in ("nginx", "web", "mongodb", "redis", "inspector")
        for container in deployment.containers(service)
        for network in deployment.inspect(container)["NetworkSettings"]["Networks"].values()
    }
    assert len(internal) >= 5
    for address in [*sorted(internal), "169.254.169.254", "127.0.0.1"]:
        response = wait_for_result(client, client.post("/img", json={"url": f"http://{address}/a.jpg"}))
        assert (response.status_code, response.json()["code"]) == (422, "blocked_address"), address
