"""Which peer's forwarded headers determine the client's address and the scheme."""

import json
from ipaddress import ip_network
from typing import Any

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Request, Response

from web.http.trusted_proxies import TrustedProxies

TRUSTED = ("10.0.0.5", "172.16.0.0/12", "fd00::/8")


def request_through(peer: str, trusted: tuple[str, ...] = TRUSTED, **headers: str) -> dict[str, Any]:
    """Return what an application behind the middleware sees of a request."""

    @Request.application
    def app(request: Request) -> Response:
        left = [name for name in request.environ if "FORWARDED" in name or "CHECK" in name]
        return Response(json.dumps({"client": request.remote_addr, "at": request.host_url, "left": left}))

    wrapped = TrustedProxies(app, tuple(ip_network(network) for network in trusted))
    sent_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    response = Client(wrapped).get(
        "/", headers={"Host": "shelf.example", **sent_headers}, environ_overrides={"REMOTE_ADDR": peer}
    )
    seen: dict[str, Any] = json.loads(response.get_data())
    return seen


@pytest.mark.parametrize("peer", ["10.0.0.5", "172.20.0.3", "fd00::7", "::ffff:10.0.0.5"])
def test_forwarded_headers_of_a_trusted_proxy_count(peer: str) -> None:
    seen = request_through(peer, X_Forwarded_For="203.0.113.9", X_Forwarded_Proto="https")
    assert (seen["client"], seen["at"]) == ("203.0.113.9", "https://shelf.example/")


@pytest.mark.parametrize("peer", ["10.0.0.6", "127.0.0.1", "fe80::7", "::ffff:10.0.0.6", ""])
def test_forwarded_headers_of_any_other_peer_are_removed(peer: str) -> None:
    seen = request_through(
        peer,
        X_Forwarded_For="10.0.0.5",
        X_Forwarded_Proto="https",
        X_Forwarded_Host="evil.example",
        Forwarded="for=10.0.0.5;proto=https",
        X_Upload_Check="1",
    )
    assert seen == {"client": peer, "at": "http://shelf.example/", "left": []}


def test_an_upload_check_of_a_trusted_proxy_is_one() -> None:
    assert request_through("10.0.0.5", X_Upload_Check="1")["left"] == ["HTTP_X_UPLOAD_CHECK"]


def test_by_default_no_proxy_is_trusted() -> None:
    assert (
        request_through("127.0.0.1", (), X_Forwarded_For="203.0.113.9", X_Forwarded_Proto="https")["at"]
        == "http://shelf.example/"
    )


def test_only_the_element_that_the_proxy_added_counts() -> None:
    seen = request_through(
        "10.0.0.5",
        X_Forwarded_For="127.0.0.1, 203.0.113.9",
        X_Forwarded_Proto="https, http",
        X_Forwarded_Host="evil.example",
    )
    assert (seen["client"], seen["at"]) == ("203.0.113.9", "http://shelf.example/")


def test_a_trusted_proxy_without_forwarded_headers_is_the_client() -> None:
    seen = request_through("10.0.0.5")
    assert (seen["client"], seen["at"]) == ("10.0.0.5", "http://shelf.example/")
