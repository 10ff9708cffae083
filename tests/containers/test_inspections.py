"""Inspections through nginx: a picture that is sent, and what the inspector must not reach from where it stands."""

import random
from typing import Any

import httpx
import pytest

from scripts.containers.engine import Deployment
from tests.faults.images import draw_valid_image


def wait_for_result(client: httpx.Client, answer: httpx.Response) -> httpx.Response:
    """Wait for an inspection that takes longer than a request waits."""
    for _ in range(6):
        if answer.status_code != 202:
            return answer
        answer = client.get(answer.headers["Location"], params={"wait": 30}, timeout=40)
    raise AssertionError("it is not done after three minutes")


def test_a_picture_that_is_sent_is_described_and_shown(client: httpx.Client) -> None:
    picture = draw_valid_image(random.Random(5))
    answer = wait_for_result(client, client.post("/img", files={"file": picture.data}))
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    assert said["sha256"] == picture.sha256
    shown = client.get(httpx.URL(said["url"]).path)
    assert (shown.status_code, shown.headers["content-type"], shown.headers["x-content-type-options"]) == (200, "image/jpeg", "nosniff")
    assert shown.content.startswith(b"\xff\xd8")


def test_a_picture_that_is_too_large_is_refused_in_words(client: httpx.Client) -> None:
    most = 4 * 1024 * 1024
    little_too_large = client.post("/img", content=b"\xff\xd8\xff" + bytes(most), headers={"Content-Type": "image/jpeg"})
    assert (little_too_large.status_code, little_too_large.json()["code"], little_too_large.json()["value"]) == (413, "source_too_large", most)
    far_too_large = client.post("/img", content=b"\xff\xd8\xff" + bytes(2 * most), headers={"Content-Type": "image/jpeg"})
    assert (far_too_large.status_code, far_too_large.json()["code"], far_too_large.json()["value"]) == (413, "source_too_large", most)


@pytest.mark.parametrize("host", ["mongodb", "redis", "nginx", "web", "localhost", "host.docker.internal"])
def test_no_name_of_the_deployment_is_asked_for(host: str, client: httpx.Client) -> None:
    answer = wait_for_result(client, client.post("/img", json={"url": f"http://{host}/a.jpg"}))
    assert (answer.status_code, answer.json()["code"]) == (422, "blocked_host")


def test_no_address_of_the_deployment_is_asked(client: httpx.Client, deployment: Deployment) -> None:
    inside = {
        network["IPAddress"]
        for service in ("nginx", "web", "mongodb", "redis", "inspector")
        for container in deployment.containers(service)
        for network in deployment.inspect(container)["NetworkSettings"]["Networks"].values()
    }
    assert len(inside) >= 5
    for address in [*sorted(inside), "169.254.169.254", "127.0.0.1"]:
        answer = wait_for_result(client, client.post("/img", json={"url": f"http://{address}/a.jpg"}))
        assert (answer.status_code, answer.json()["code"]) == (422, "blocked_address"), address
