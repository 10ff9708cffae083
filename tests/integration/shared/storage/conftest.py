"""Fixtures for the tests of the storage."""

from collections.abc import Iterator

import pytest

from shared import settings
from shared.storage.mongo import Db, connect
from tests.integration.shared.storage.old_release import RELEASE


@pytest.fixture
def old(mongo: settings.Mongo) -> Iterator[Db]:
    """Return a database as the release before left it. It is dropped after the test."""
    db = connect(mongo, app="test")
    for name, held in RELEASE.items():
        db.create_collection(name)
        indexes = [{key: value for key, value in index.items() if key != "v"} for index in held["indexes"]]
        db.command("createIndexes", name, indexes=indexes)
        if held["documents"]:
            db[name].insert_many(held["documents"])
    # An index of the versions between that of the fixture and this one.
    db.batches.create_index([("open", 1), ("created_at", 1), ("bytes", 1)], name="backlog", partialFilterExpression={"open": True})
    yield db
    db.client.drop_database(db.name)
    db.client.close()
