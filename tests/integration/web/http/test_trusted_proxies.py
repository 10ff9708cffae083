"""The web front behind a proxy, as configured: gunicorn must not apply rules of its own to forwarded headers."""

import http.client
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared import settings
from shared.storage.mongo import Db
from tests.support.gunicorn_front import WebFront, run_web_front
from tests.support.service_stack import wait_until
from tests.support.web_client import image_payload

pytestmark = pytest.mark.slow

CLIENT, PROXY = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def front(mongo: settings.Mongo, db: Db, tmp_path: Path) -> Iterator[WebFront]:
    with run_web_front(mongo, tmp_path, WEB_TRUSTED_PROXIES=f'["{PROXY}"]') as front:
        yield front


def send(front: WebFront, peer: str, method: str, path: str, headers: dict[str, str], body: Any = None) -> tuple[http.client.HTTPResponse, Any]:
    """Send a request from an address of this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=60, source_address=(peer, 0))
    all_headers = {"Host": "localhost", "Content-Type": "application/json"} | headers
    connection.request(method, path, None if body is None else json.dumps(body), all_headers)
    response = connection.getresponse()
    parsed = json.loads(response.read())
    connection.close()
    return response, parsed


def addresses(front: WebFront, peer: str, headers: dict[str, str]) -> list[str]:
    """Return the addresses in a listing: of its first image, and of its next page."""
    response, parsed = send(front, peer, "GET", "/image_batches", headers)
    return [parsed["batches"][0]["images"][0]["url"], (response.headers["Link"] or "").lstrip("<")]


def test_links_and_the_origin_check_use_the_scheme_that_a_trusted_proxy_forwards(front: WebFront) -> None:
    secure = {"X-Forwarded-Proto": "https", "Origin": "https://localhost"}
    assert send(front, PROXY, "POST", "/upload_image_batch", secure, [image_payload()])[0].status == 202
    refused, problem = send(front, CLIENT, "POST", "/upload_image_batch", secure, [image_payload()])
    assert (refused.status, problem["code"]) == (403, "foreign_origin")
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Protocol": "ssl", "X-Forwarded-Ssl": "on"}
    assert all(address.startswith("https://localhost/") for address in addresses(front, PROXY, forwarded))
    assert all(address.startswith("http://localhost/") for address in addresses(front, PROXY, {}))
    assert all(address.startswith("http://localhost/") for address in addresses(front, CLIENT, forwarded))


def test_the_log_names_the_client_and_not_the_address_that_it_claims(front: WebFront) -> None:
    send(front, PROXY, "GET", "/limits", {"X-Forwarded-For": "10.1.1.1, 203.0.113.9"})
    send(front, CLIENT, "GET", "/limits", {"X-Forwarded-For": "203.0.113.9"})
    clients = [line["client"] for line in front.log_lines("shelfsight.access") if "/limits" in line["message"]]
    assert clients == ["203.0.113.9", CLIENT]


def test_no_peer_sets_the_script_name_by_a_header(front: WebFront) -> None:
    response, body = send(front, CLIENT, "GET", "/limits", {"SCRIPT_NAME": "/limits"})
    assert (response.status, "max_images" in body) == (200, True)


def test_a_server_that_stops_has_stored_the_clients_of_all_refused_requests(front: WebFront, db: Db) -> None:
    def refuse(peer: str) -> None:
        assert send(front, peer, "GET", "/limits", {"X-Forwarded-For": "203.0.113.9", "Authorization": "Bearer x"})[0].status == 401

    def count_refusals() -> dict[str, int]:
        grouped = db.audit_events.aggregate([{"$match": {"type": "request.refused"}}, {"$group": {"_id": "$address", "n": {"$sum": "$count"}}}])
        return {group["_id"]: group["n"] for group in grouped}  # there is a document for each minute

    refuse(PROXY)
    refuse(CLIENT)
    wait_until(lambda: len(count_refusals()) == 2, 60, "the first refusals are stored")
    for _ in range(4):  # the next ones would be stored ten seconds later
        refuse(PROXY)
    os.kill(front.pid, signal.SIGTERM)
    wait_until(lambda: count_refusals() == {"203.0.113.9": 5, CLIENT: 1}, 60, "all refusals are stored")
