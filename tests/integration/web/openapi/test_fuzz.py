"""A fuzzer finds no status 500 and no undescribed response in a service whose requests need credentials.

``tests/e2e/test_fuzz.py`` sends many more requests, with all processes, while access is open.
"""

import json
import urllib.request
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from shared.accounts import sessions
from shared.accounts.signing_keys import FixedSigningKeys
from shared.accounts.tokens import TokenSigner
from shared.queue import heartbeats
from shared.queues import IMAGES
from shared.storage.mongo import connect
from tests.support.accounts import SIGNING_KEYS, bearer, by_cookie, make_cookie, make_user
from tests.support.databases import Databases
from tests.support.fuzzer import CHECKS, fuzz
from tests.support.gunicorn_front import run_web_front

pytestmark = pytest.mark.slow

_CHECKS: Final = [*CHECKS, "ignored_auth"]
"""``ignored_auth`` repeats requests without credentials and with invalid ones, which must be refused with 401."""
_NOT_READY: Final = ["--exclude-path", "/readyz"]
"""It has the status 503, because there is neither a worker nor Redis."""
_INSPECTIONS: Final = ["--exclude-path", "/", "--exclude-path", "/img"]
"""They wait for an inspector, and there is none."""
_NO_LIMITS: Final = {"RATE_REQUESTS_PER_MINUTE": "1000000", "RATE_ADDRESS_PER_MINUTE": "1000000"}
"""The fuzzer sends more requests than a client may, and expects 401 for each of those without credentials."""
_SIGN_OUT: Final = ["--exclude-path", "/logout"]
"""It would end the session. Nothing else can: the last administrator can neither be disabled nor demoted."""


class Front(NamedTuple):
    """A web front, and the access token and the session cookie of its only administrator."""

    url: str
    token: str
    cookie: str


@pytest.fixture(scope="module")
def front(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Run a web front with an administrator. The active model is known, from the heartbeat of a worker that has ended."""
    mongo = databases.lend()
    db = connect(mongo, app="test")
    signer = TokenSigner(FixedSigningKeys({name: secret.encode() for name, secret in SIGNING_KEYS.items()}))
    root = make_user(db, "root", "admin")
    heartbeats.send_heartbeat(db, "worker", IMAGES, model={"name": "m", "version": "1", "weights_sha256": "a" * 64})
    token, cookie = sessions.start(db, signer, root).access_token, make_cookie(db, root)
    with run_web_front(mongo, tmp_path_factory.mktemp("front"), ACCESS="on", SIGNING_KEYS=json.dumps(SIGNING_KEYS), **_NO_LIMITS) as running:
        yield Front(running.url, token, cookie)
    db.client.close()
    databases.give_back(mongo)


def test_requests_of_an_administrator_conform_to_the_openapi_document(front: Front, tmp_path_factory: pytest.TempPathFactory) -> None:
    options = ["--phases", "fuzzing,stateful", "--max-examples", "4", "--header", f"Authorization: Bearer {front.token}", *_NOT_READY, *_INSPECTIONS, *_SIGN_OUT]
    fuzz(front.url, tmp_path_factory.mktemp("fuzzer"), *options, checks=_CHECKS, left_out=4)
    assert role(front, bearer(front.token)) == "admin"


def test_requests_of_the_browser_of_an_administrator_conform_to_the_openapi_document(front: Front, tmp_path_factory: pytest.TempPathFactory) -> None:
    headers = [option for name, value in by_cookie(front.cookie).items() for option in ("--header", f"{name}: {value}")]
    options = ["--phases", "fuzzing", "--max-examples", "1", *headers, *_NOT_READY, *_INSPECTIONS, *_SIGN_OUT]
    fuzz(front.url, tmp_path_factory.mktemp("fuzzer"), *options, left_out=4)
    assert role(front, by_cookie(front.cookie)) == "admin"


def role(front: Front, headers: dict[str, str]) -> str:
    request = urllib.request.Request(f"{front.url}/me", headers=headers)
    return str(json.load(urllib.request.urlopen(request, timeout=60))["role"])


def test_requests_without_credentials_conform_to_the_openapi_document(front: Front, tmp_path_factory: pytest.TempPathFactory) -> None:
    fuzz(front.url, tmp_path_factory.mktemp("fuzzer"), "--phases", "fuzzing", "--max-examples", "3", *_NOT_READY, checks=_CHECKS, left_out=1)
