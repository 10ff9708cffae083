"""The shipped front behind a proxy: gunicorn's own rules about forwarded headers must not stand beside ours."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared import settings
from shared.storage.mongo import Db
from tests.support.gunicorn_front import WebFront, run_web_front
from tests.support.web_client import image_payload

pytestmark = pytest.mark.slow

CLIENT, PROXY = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def front(mongo: settings.Mongo, db: Db, tmp_path: Path) -> Iterator[WebFront]:
    with run_web_front(mongo, tmp_path, WEB_TRUSTED_PROXIES=f'["{PROXY}"]') as one:
        yield one


def ask(front: WebFront, peer: str, method: str, path: str, headers: dict[str, str], body: Any = None) -> tuple[http.client.HTTPResponse, Any]:
    """Send a request from an address of this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=60, source_address=(peer, 0))
    sent = {"Host": "localhost", "Content-Type": "application/json"} | headers
    connection.request(method, path, None if body is None else json.dumps(body), sent)
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    return answer, found


def addresses(front: WebFront, peer: str, headers: dict[str, str]) -> list[str]:
    """Give what a listing says of where it and its images are."""
    answer, found = ask(front, peer, "GET", "/image_batches", headers)
    return [found["batches"][0]["images"][0]["url"], (answer.headers["Link"] or "").lstrip("<")]


def test_links_and_the_check_of_the_origin_follow_the_scheme_that_a_trusted_proxy_names(front: WebFront) -> None:
    secure = {"X-Forwarded-Proto": "https", "Origin": "https://localhost"}
    assert ask(front, PROXY, "POST", "/upload_image_batch", secure, [image_payload()])[0].status == 202
    refused, said = ask(front, CLIENT, "POST", "/upload_image_batch", secure, [image_payload()])
    assert (refused.status, said["code"]) == (403, "foreign_origin")
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Protocol": "ssl", "X-Forwarded-Ssl": "on"}
    assert all(one.startswith("https://localhost/") for one in addresses(front, PROXY, forwarded))
    assert all(one.startswith("http://localhost/") for one in addresses(front, PROXY, {}))
    assert all(one.startswith("http://localhost/") for one in addresses(front, CLIENT, forwarded))


def test_the_log_names_the_client_and_not_whom_it_claims_to_be(front: WebFront) -> None:
    ask(front, PROXY, "GET", "/limits", {"X-Forwarded-For": "10.1.1.1, 203.0.113.9"})
    ask(front, CLIENT, "GET", "/limits", {"X-Forwarded-For": "203.0.113.9"})
    asked = [line["client"] for line in front.log_lines("shelfsight.access") if "/limits" in line["message"]]
    assert asked == ["203.0.113.9", CLIENT]


def test_no_peer_moves_the_application_by_a_header(front: WebFront) -> None:
    answer, said = ask(front, CLIENT, "GET", "/limits", {"SCRIPT_NAME": "/limits"})
    assert (answer.status, "max_images" in said) == (200, True)
