"""The environment of the commands of ``scripts/admin``: the database of a test."""

from functools import partial

import pymongo.common
import pytest
from argon2.profiles import CHEAPEST

from shared import settings
from shared.accounts import users
from shared.accounts.passwords import PasswordHasher
from shared.accounts.permissions import ROLES, Rights
from shared.storage.mongo import Db


@pytest.fixture(autouse=True)
def _environment(mongo: settings.Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URL", mongo.url)
    monkeypatch.setenv("MONGODB_DATABASE", mongo.database)
    for name in ("PUBLIC_URL", "SIGNING_KEYS", "SIGNING_KEYS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pymongo.common, "MIN_HEARTBEAT_INTERVAL", 0.1)  # so long a client waits before it tries again to connect
    # The parameters that the service uses cost a tenth of a second for each hash.
    monkeypatch.setattr("scripts.administration.users.PasswordHasher", partial(PasswordHasher, parameters=CHEAPEST))


@pytest.fixture
def admin(db: Db) -> users.User:
    """Return the only administrator, who has all stores."""
    return users.create(db, users.NewUser("alice", "alice@example.com", "admin", Rights(ROLES["admin"], None), None))
