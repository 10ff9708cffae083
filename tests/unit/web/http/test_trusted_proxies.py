"""Whose word counts for the address of a client and the scheme of its request."""

import json
from ipaddress import ip_network
from typing import Any

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Request, Response

from web.http.trusted_proxies import TrustedProxies

TRUSTED = ("10.0.0.5", "172.16.0.0/12", "fd00::/8")


def seen(peer: str, trusted: tuple[str, ...] = TRUSTED, **headers: str) -> dict[str, Any]:
    """Give what an application behind the middleware sees of a request."""

    @Request.application
    def app(request: Request) -> Response:
        left = [name for name in request.environ if "FORWARDED" in name]
        return Response(json.dumps({"client": request.remote_addr, "at": request.host_url, "left": left}))

    wrapped = TrustedProxies(app, tuple(ip_network(one) for one in trusted))
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = Client(wrapped).get("/", headers={"Host": "shelf.example", **sent}, environ_overrides={"REMOTE_ADDR": peer})
    found: dict[str, Any] = json.loads(answer.get_data())
    return found


@pytest.mark.parametrize("peer", ["10.0.0.5", "172.20.0.3", "fd00::7", "::ffff:10.0.0.5"])
def test_a_trusted_proxy_is_believed(peer: str) -> None:
    found = seen(peer, X_Forwarded_For="203.0.113.9", X_Forwarded_Proto="https")
    assert (found["client"], found["at"]) == ("203.0.113.9", "https://shelf.example/")


@pytest.mark.parametrize("peer", ["10.0.0.6", "127.0.0.1", "fe80::7", "::ffff:10.0.0.6", ""])
def test_nobody_else_is_and_what_it_says_is_not_passed_on(peer: str) -> None:
    found = seen(
        peer, X_Forwarded_For="10.0.0.5", X_Forwarded_Proto="https", X_Forwarded_Host="evil.example", Forwarded="for=10.0.0.5;proto=https"
    )
    assert found == {"client": peer, "at": "http://shelf.example/", "left": []}


def test_by_default_nobody_is_believed() -> None:
    assert seen("127.0.0.1", (), X_Forwarded_For="203.0.113.9", X_Forwarded_Proto="https")["at"] == "http://shelf.example/"


def test_only_what_the_proxy_itself_has_written_counts() -> None:
    found = seen("10.0.0.5", X_Forwarded_For="127.0.0.1, 203.0.113.9", X_Forwarded_Proto="https, http", X_Forwarded_Host="evil.example")
    assert (found["client"], found["at"]) == ("203.0.113.9", "http://shelf.example/")


def test_a_trusted_proxy_that_says_nothing_is_itself_the_client() -> None:
    found = seen("10.0.0.5")
    assert (found["client"], found["at"]) == ("10.0.0.5", "http://shelf.example/")
