"""``python -m deploy.initiate_mongodb``: initiate a new MongoDB as a replica set with one member.

The program also creates the users, and runs the migrations, which create the indexes. It runs in the network namespace
of the MongoDB container, because a server that has no users yet accepts these commands only from localhost (MongoDB's
localhost exception). It can be run again: it leaves everything that already exists unchanged. If requests need credentials, and
nobody is an administrator yet, it prints how to create one.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_settings import SettingsError
from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure

from scripts.administration.database import reported_errors
from scripts.administration.progress_line import ProgressLine
from shared.accounts import users
from shared.errors import StoreAway, StoreMisconfigured
from shared.settings import Access, Mongo, explain
from shared.storage.migrations import runner
from shared.storage.mongo import connect

FIRST_ADMINISTRATOR: Final = "docker compose run --rm --no-deps web python -m scripts.administration create-user NAME --role admin --stores '*'"
_ADMINISTRATOR: Final = "administrator"
_PASSWORD: Final = Path("/secrets/mongodb/administrator")
_TIME_LIMIT_S: Final = 60.0
_TIMEOUT_MS: Final = 3000
_UNAUTHORIZED: Final = {13, 18}
"""The error codes Unauthorized and AuthenticationFailed; see
https://www.mongodb.com/docs/manual/reference/error-codes/"""
_ALREADY_INITIALIZED: Final = 23
_USER_EXISTS: Final = 51003


def main() -> None:
    """Prepare MongoDB; if this fails, print an error message and exit with code 1."""
    try:
        mongo = Mongo()  # not ``Settings``, which would also check the settings of the web front and fail here
    except (ValidationError, SettingsError) as error:
        sys.exit(f"error: {explain(error)}")
    _retry(lambda: _prepare(mongo), (ConnectionFailure, OperationFailure))
    with reported_errors():
        _retry(lambda: _migrate(mongo), (StoreAway,))
        if _is_access_on():
            _retry(lambda: _explain_first_administrator(mongo), (StoreAway,))


def _retry(step: Callable[[], None], errors: tuple[type[Exception], ...]) -> None:
    """Repeat a step while MongoDB is starting or electing a primary.

    A step that has worked for longer than the time limit before it fails is repeated for the whole time limit again,
    because a migration of much data takes long and continues where it was.
    """
    until = time.monotonic() + _TIME_LIMIT_S
    while True:
        began = time.monotonic()
        try:
            return step()
        except errors as error:
            if time.monotonic() > began + _TIME_LIMIT_S:
                until = time.monotonic() + _TIME_LIMIT_S
            if time.monotonic() > until or isinstance(error, StoreMisconfigured):
                sys.exit(f"error: MongoDB could not be prepared within {_TIME_LIMIT_S:.0f} s ({error}); see the log of the mongodb container")
            time.sleep(0.2)  # MongoDB is starting or electing a primary


def _prepare(mongo: Mongo) -> None:
    host = urlsplit(mongo.url).hostname
    user, password = urlsplit(mongo.url).username, urlsplit(mongo.url).password
    member = {"_id": 0, "host": f"{host}:27017"}
    with _connect_locally() as unauthenticated:
        _run_once(_UNAUTHORIZED | {_ALREADY_INITIALIZED}, unauthenticated, "replSetInitiate", {"_id": "shelfsight", "members": [member]})
        options = {"pwd": _PASSWORD.read_text(), "roles": ["root"]}
        _run_once(_UNAUTHORIZED | {_USER_EXISTS}, unauthenticated, "createUser", _ADMINISTRATOR, **options)
    with _connect_locally(username=_ADMINISTRATOR, password=_PASSWORD.read_text()) as administrator:
        roles = [{"role": "readWrite", "db": mongo.database}, {"role": "dbAdmin", "db": mongo.database}]
        _run_once({_USER_EXISTS}, administrator, "createUser", user, pwd=password, roles=roles)


def _migrate(mongo: Mongo) -> None:
    db = connect(mongo, app="initiate")
    try:
        runner.migrate(db, ProgressLine().show)
    finally:
        db.client.close()


def _is_access_on() -> bool:
    try:
        return Access().is_on
    except (ValidationError, SettingsError):
        return False  # the web front, which needs these settings, says what is wrong with them


def _explain_first_administrator(mongo: Mongo) -> None:
    db = connect(mongo, app="initiate")
    try:
        if not users.has_administrator(db):
            sys.stdout.write(f"There is no administrator yet; create the first one with: {FIRST_ADMINISTRATOR}\n")
    finally:
        db.client.close()


def _connect_locally(**credentials: Any) -> "MongoClient[dict[str, Any]]":
    return MongoClient("127.0.0.1", 27017, directConnection=True, serverSelectionTimeoutMS=_TIMEOUT_MS, socketTimeoutMS=_TIMEOUT_MS, **credentials)


def _run_once(done_codes: set[int], client: "MongoClient[dict[str, Any]]", command: str, value: Any, **options: Any) -> None:
    """Run a database command, unless an earlier run of this program has already executed it.

    The server reports an earlier execution with an error whose code is in ``done_codes``. These errors are ignored.
    """
    try:
        client.admin.command(command, value, **options)
    except OperationFailure as error:
        if error.code not in done_codes:
            raise


if __name__ == "__main__":
    main()
