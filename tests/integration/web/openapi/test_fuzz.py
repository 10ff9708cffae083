"""A fuzzer finds no status 500 and no undescribed response in a service whose requests need credentials.

``tests/e2e/test_fuzz.py`` sends many more requests, with all processes, while access is open.
"""

import json
import urllib.request
from collections.abc import Iterator
from typing import Final

import pytest

from shared.accounts import sessions
from shared.accounts.tokens import TokenSigner
from shared.storage.mongo import connect
from tests.support.accounts import SIGNING_KEYS, bearer, make_user
from tests.support.databases import Databases
from tests.support.fuzzer import CHECKS, fuzz
from tests.support.gunicorn_front import run_web_front

pytestmark = pytest.mark.slow

_CHECKS: Final = [*CHECKS, "ignored_auth"]
"""``ignored_auth`` repeats requests without credentials and with invalid ones, which must be refused with 401."""
_NOT_READY: Final = ["--exclude-path", "/readyz"]
"""It has the status 503, because there is neither a worker nor Redis."""
_INSPECTIONS: Final = ["--exclude-path", "/", "--exclude-path", "/img"]
"""They have the status 503 without Redis."""


@pytest.fixture(scope="module")
def front(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Run a web front, and return its URL and the access token of its only administrator."""
    mongo = databases.lend()
    db = connect(mongo, app="test")
    signer = TokenSigner({name: secret.encode() for name, secret in SIGNING_KEYS.items()})
    tokens = sessions.start(db, signer, make_user(db, "root", "admin"))
    with run_web_front(mongo, tmp_path_factory.mktemp("front"), ACCESS="on", SIGNING_KEYS=json.dumps(SIGNING_KEYS)) as running:
        yield f"http://127.0.0.1:{running.port}", tokens.access_token
    db.client.close()
    databases.give_back(mongo)


def test_requests_of_an_administrator_conform_to_the_openapi_document(front: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    url, token = front
    options = [
        "--phases", "fuzzing,stateful", "--max-examples", "4", "--header", f"Authorization: Bearer {token}", *_NOT_READY, *_INSPECTIONS,
        "--exclude-path", "/logout",  # it would end the session. Nothing else can: the last administrator can neither be disabled nor demoted.
    ]  # fmt: skip
    fuzz(url, tmp_path_factory.mktemp("fuzzer"), *options, checks=_CHECKS, left_out=4)
    request = urllib.request.Request(f"{url}/me", headers=bearer(token))
    assert json.load(urllib.request.urlopen(request, timeout=60))["role"] == "admin"


def test_requests_without_credentials_conform_to_the_openapi_document(front: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    url, _ = front
    fuzz(url, tmp_path_factory.mktemp("fuzzer"), "--phases", "fuzzing", "--max-examples", "3", *_NOT_READY, checks=_CHECKS, left_out=1)
