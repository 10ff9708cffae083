"""``python -m deploy.initiate_mongodb``: make the fresh MongoDB a replica set of one, with its users and the indexes.

It runs in MongoDB's own network namespace, because a server without users trusts its loopback alone. Again is fine: what is
there stays.
"""

import sys
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_settings import SettingsError
from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure

from shared.errors import StoreAway
from shared.settings import Mongo, explain
from shared.storage.mongo import connect
from shared.storage.schema import create_indexes

_ADMINISTRATOR: Final = "administrator"
_PASSWORD: Final = Path("/secrets/mongodb/administrator")
_LIMIT_S: Final = 60.0
_TIMEOUT_MS: Final = 3000
_UNAUTHORIZED: Final = {13, 18}
"""Unauthorized, AuthenticationFailed: https://www.mongodb.com/docs/manual/reference/error-codes/"""
_ALREADY_INITIALIZED: Final = 23
_USER_EXISTS: Final = 51003


def main() -> None:
    """Do what is missing, or end with a sentence."""
    try:
        mongo = Mongo()  # alone: the settings of the web would be refused here
    except (ValidationError, SettingsError) as error:
        sys.exit(f"error: {explain(error)}")
    until = time.monotonic() + _LIMIT_S
    while True:
        try:
            _prepare(mongo)
        except (ConnectionFailure, OperationFailure, StoreAway) as error:
            if time.monotonic() > until:
                sys.exit(f"MongoDB could not be prepared within {_LIMIT_S:.0f} s: {error}")
            time.sleep(0.2)  # it is starting, or electing itself
        else:
            return


def _prepare(mongo: Mongo) -> None:
    host = urlsplit(mongo.url).hostname
    user, password = urlsplit(mongo.url).username, urlsplit(mongo.url).password
    member = {"_id": 0, "host": f"{host}:27017"}
    with _locally() as fresh:
        _unless(_UNAUTHORIZED | {_ALREADY_INITIALIZED}, fresh, "replSetInitiate", {"_id": "shelfsight", "members": [member]})
        first = {"pwd": _PASSWORD.read_text(), "roles": ["root"]}
        _unless(_UNAUTHORIZED | {_USER_EXISTS}, fresh, "createUser", _ADMINISTRATOR, **first)
    with _locally(username=_ADMINISTRATOR, password=_PASSWORD.read_text()) as known:
        roles = [{"role": "readWrite", "db": mongo.database}, {"role": "dbAdmin", "db": mongo.database}]
        _unless({_USER_EXISTS}, known, "createUser", user, pwd=password, roles=roles)
    db = connect(mongo, app="initiate")
    try:
        create_indexes(db)
    finally:
        db.client.close()


def _locally(**login: Any) -> "MongoClient[dict[str, Any]]":
    return MongoClient("127.0.0.1", 27017, directConnection=True, serverSelectionTimeoutMS=_TIMEOUT_MS, socketTimeoutMS=_TIMEOUT_MS, **login)


def _unless(codes: set[int], client: "MongoClient[dict[str, Any]]", command: str, value: Any, **more: Any) -> None:
    """Run a command on the server; its refusal with one of these codes says that it was done before."""
    try:
        client.admin.command(command, value, **more)
    except OperationFailure as error:
        if error.code not in codes:
            raise


if __name__ == "__main__":
    main()
