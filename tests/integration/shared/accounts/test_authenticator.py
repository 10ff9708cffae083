"""Credentials are checked without a read of MongoDB if they were checked just before, or cannot be valid."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pymongo.monitoring
import pytest

from scripts.local.temporary_servers import Mongod
from shared import settings
from shared.accounts import api_keys, key_format
from shared.accounts.authenticator import Authenticator
from shared.accounts.key_usage import KeyUsage
from shared.accounts.permissions import ROLES
from shared.accounts.signing_keys import FixedSigningKeys
from shared.accounts.tokens import TokenSigner
from shared.errors import StoreAway, Unauthorized
from shared.storage.mongo import Db, connect
from tests.support.accounts import SIGNER, make_key, make_token, make_user
from tests.support.mongo_proxy import OutageProxy


class _CountingListener(pymongo.monitoring.CommandListener):
    """Counts the commands that a client sends."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def started(self, event: pymongo.monitoring.CommandStartedEvent) -> None:
        if event.command_name not in {"saslContinue", "endSessions"}:
            self.commands.append(event.command_name)

    def succeeded(self, event: Any) -> None: ...

    def failed(self, event: Any) -> None: ...


@pytest.fixture(name="counted")
def make_counted_db(db: Db, mongo: settings.Mongo) -> Iterator[tuple[Db, list[str]]]:
    """Return the database through another client, and the list of the commands that this client has sent."""
    listener = _CountingListener()
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(mongo.url, event_listeners=[listener])
    yield client[db.name], listener.commands
    client.close()


def test_a_key_and_a_token_are_read_once(db: Db, counted: tuple[Db, list[str]]) -> None:
    counted_db, commands = counted
    authenticator = Authenticator(counted_db, SIGNER)
    user = make_user(db, role="uploader", stores=["north"])
    key, token = make_key(db, "tagger", ["north"], user=user), make_token(db, user)
    principals = [authenticator.authenticate(text) for text in (key, token)]
    assert [principal.rights.scopes for principal in principals] == [ROLES["tagger"], ROLES["uploader"]]
    assert {principal.account for principal in principals} == {f"user:{user.id}"}
    assert [principal.actor for principal in principals] == [f"key:{key.split('_')[1]}", f"user:{user.id}"]
    assert commands == ["find"] * 4
    for _ in range(100):
        assert [authenticator.authenticate(text) for text in (key, token)] == principals
    assert len(commands) == 4


def test_what_cannot_be_valid_is_refused_without_a_read(counted: tuple[Db, list[str]], db: Db) -> None:
    counted_db, commands = counted
    authenticator = Authenticator(counted_db, SIGNER)
    key = make_key(db)
    forged = TokenSigner(FixedSigningKeys({"test": b"y" * 40})).issue_access("0" * 32, "1" * 32)[0]
    for text in ("rubbish", "sfs_", key[:-1], key.swapcase(), forged, f"{forged}x", "a.b.c", ""):
        with pytest.raises(Unauthorized):
            authenticator.authenticate(text)
    assert commands == []


def test_another_secret_with_the_id_of_a_key_is_refused_also_if_the_key_was_read(db: Db) -> None:
    authenticator = Authenticator(db, SIGNER)
    key = make_key(db)
    authenticator.authenticate(key)
    start = f"sfs_{key.split('_')[1]}_{'A' * 43}"
    forged = start + key_format._checksum(start)
    assert key_format.parse(forged) is not None
    with pytest.raises(Unauthorized):
        authenticator.authenticate(forged)
    assert authenticator.authenticate(key).may("admin")


def test_an_unknown_key_is_read_once(counted: tuple[Db, list[str]]) -> None:
    counted_db, commands = counted
    authenticator = Authenticator(counted_db, SIGNER)
    unknown = key_format.generate().text
    for _ in range(5):
        with pytest.raises(Unauthorized):
            authenticator.authenticate(unknown)
    assert commands == ["find"]


def last_used_at(db: Db) -> datetime | None:
    return api_keys.list_page(db, {}, None, 1)[0].last_used_at


def test_the_use_of_a_key_is_stored_at_most_once_a_minute(db: Db) -> None:
    key_id = make_key(db).split("_")[1]
    usage = KeyUsage(db)
    assert last_used_at(db) is None
    assert [usage.is_due(key_id) for _ in range(3)] == [True, False, False]
    usage.record(key_id)
    first = last_used_at(db)
    assert first is not None
    KeyUsage(db).record(key_id)  # another process
    assert last_used_at(db) == first
    db.api_keys.update_one({}, [{"$set": {"last_used_at": {"$subtract": ["$last_used_at", 61_000]}}}])
    usage.record(key_id)
    later = last_used_at(db)
    assert later is not None
    assert later >= first


@pytest.mark.timeout(20)
def test_a_frozen_database_is_given_up_within_the_time_limit(db: Db, mongo: settings.Mongo, mongod: Mongod) -> None:
    """The time limit of the test is below that of a connection, which is 30 s."""
    proxy = OutageProxy(mongod.port)
    through_proxy = connect(mongo.model_copy(update={"url": mongod.direct_url(proxy.port), "socket_timeout_s": 30.0}), app="test")
    authenticator = Authenticator(through_proxy, SIGNER, read_deadline_s=0.3)
    user = make_user(db)
    key, token = make_key(db, user=user), make_token(db, user)
    assert authenticator.authenticate(make_key(db, user=user)).user_id == user.id  # it has a connection now
    proxy.freeze()
    for credentials in (key, token):
        with pytest.raises(StoreAway):
            authenticator.authenticate(credentials)
    proxy.restore()
    through_proxy.client.close()
    proxy.close()
