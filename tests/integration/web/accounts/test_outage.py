"""While MongoDB does not respond, credentials that are not cached cannot be checked: 503, never 401."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from argon2.profiles import CHEAPEST
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from scripts.local.temporary_servers import Mongod
from shared import settings
from shared.accounts import authenticator, key_format, users
from shared.accounts.passwords import PasswordHasher
from shared.accounts.signing_keys import FixedSigningKeys
from shared.accounts.tokens import TokenSigner
from shared.storage.mongo import Db
from tests.support import accounts, web_client
from tests.support.accounts import PASSWORD, bearer, by_cookie, make_cookie, make_key, make_user
from tests.support.mongo_proxy import OutageProxy
from tests.support.service_stack import wait_until

_TIMEOUT_S = 0.2
_LIMIT_S = 5
"""Far above the time limits of the database that this test sets, and far below those that the service has by default."""


class Outage(NamedTuple):
    """A web front that is connected to MongoDB through a proxy, with the credentials of a key and of two sessions."""

    web: FlaskClient
    proxy: OutageProxy
    key: str
    token: str
    refresh_token: str
    cookie: str

    def me(self, credentials: str) -> int:
        return self.web.get("/me", headers=bearer(credentials)).status_code

    def send(self, *requests: dict[str, Any]) -> list[TestResponse]:
        """Send requests at the same time, because each of them waits for MongoDB."""

        def send_one(request: dict[str, Any]) -> TestResponse:
            return self.web.application.test_client(use_cookies=False).open(**request)

        with ThreadPoolExecutor(len(requests)) as threads:
            return list(threads.map(send_one, requests))


@pytest.fixture
def outage(db: Db, mongo: settings.Mongo, mongod: Mongod, blobs_root: Path) -> Iterator[Outage]:
    proxy = OutageProxy(mongod.port)
    timeouts = dict.fromkeys(("connect_timeout_s", "socket_timeout_s", "server_selection_timeout_s", "commit_deadline_s"), _TIMEOUT_S)
    proxied = mongo.model_copy(update={"url": mongod.direct_url(proxy.port), **timeouts})
    web = web_client.make_client(proxied, blobs_root, access=accounts.ACCESS)
    web.application.extensions["shelfsight"].password_hasher = PasswordHasher(2, 30, CHEAPEST)
    make_user(db)
    signed_in = web.post("/login", json={"username": "anna", "password": PASSWORD}).get_json()
    yield Outage(web, proxy, make_key(db), signed_in["access_token"], signed_in["refresh_token"], make_cookie(db, users.get(db, "anna")))
    proxy.restore()
    web_client.open_services.pop().close()  # before the proxy that it is connected through
    proxy.close()


@pytest.mark.parametrize("fault", ["refuse", "freeze"])
def test_credentials_that_cannot_be_checked_are_503_within_the_time_limits(outage: Outage, fault: str) -> None:
    getattr(outage.proxy, fault)()
    began = time.monotonic()
    requests = [{"path": path, "headers": headers} for path in ("/me", "/image_batches", "/nothing") for headers in (bearer(outage.key), bearer(outage.token), by_cookie(outage.cookie))]
    for refused in outage.send(*requests):
        assert time.monotonic() - began < _LIMIT_S
        assert (refused.status_code, refused.get_json()["code"]) == (503, "database_unavailable")
        assert int(refused.headers["Retry-After"]) > 0
        assert not {"WWW-Authenticate", "Set-Cookie"} & set(refused.headers.keys())
    outage.proxy.restore()
    for credentials in (outage.key, outage.token):
        wait_until(lambda: outage.me(credentials) == 200)  # noqa: B023 -- it is called before the next step of the loop


def test_what_needs_no_read_is_answered_as_ever(outage: Outage) -> None:
    outage.proxy.refuse()
    forged = TokenSigner(FixedSigningKeys({"test": b"another key, with more than 32 bytes"})).issue_access("someone", "session")[0]
    for garbage in ("x", outage.key[:-1], outage.key[:-1] + "g", forged, outage.token[:-2]):
        refused = outage.web.get("/me", headers=bearer(garbage))
        assert (refused.status_code, refused.get_json()["code"]) == (401, "unauthorized")
    assert outage.web.get("/me").status_code == 401
    assert outage.web.get("/me", headers={"Authorization": "Basic YTpi"}).status_code == 401
    assert outage.web.get("/me", headers={"Cookie": f"shelfsight_session={outage.cookie[:-2]}"}).status_code == 401
    for path in ("/healthz", "/limits", "/openapi.json", "/docs", "/login"):
        assert outage.web.get(path, headers=by_cookie(outage.cookie)).status_code == 200
    assert outage.me(key_format.generate().text) == 503  # its form is right, so only the database knows that there is no such key


def test_nobody_can_sign_in_or_sign_up(outage: Outage) -> None:
    outage.proxy.refuse()
    bodies = {
        "/login": {"username": "anna", "password": PASSWORD},
        "/sessions": {"username": "anna", "password": PASSWORD},
        "/refresh": {"refresh_token": outage.refresh_token},
        "/signup": {"username": "ben", "email": "ben@example.com", "password": PASSWORD},
        "/reset_password": {"token": "t" * 43, "new_password": PASSWORD},
    }
    for refused in outage.send(*({"method": "POST", "path": path, "json": body} for path, body in bodies.items())):
        assert (refused.status_code, refused.get_json()["code"]) == (503, "database_unavailable")
    outage.proxy.restore()
    wait_until(lambda: outage.web.post("/refresh", json={"refresh_token": outage.refresh_token}).status_code == 200)


def test_cached_credentials_are_accepted_for_a_few_seconds(outage: Outage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert authenticator.MAX_AGE_S < 5
    monkeypatch.setattr(authenticator, "MAX_AGE_S", 0.5)
    before_reads = time.monotonic()
    assert (outage.me(outage.key), outage.me(outage.token)) == (200, 200)
    after_reads = time.monotonic()
    outage.proxy.refuse()
    accepted = [outage.me(outage.key), outage.me(outage.token)]
    assert accepted == [200, 200] or time.monotonic() - before_reads > 0.5
    time.sleep(max(0, 0.5 - (time.monotonic() - after_reads)))  # only time ends the validity of a cached entry
    assert [found.status_code for found in outage.send(*({"path": "/me", "headers": bearer(text)} for text in (outage.key, outage.token)))] == [503, 503]
