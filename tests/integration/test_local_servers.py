"""The embedded servers: another port, a kill, a stranger on the port."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient

from scripts.local import embedded
from tests.servers import Mongod, RedisServer

pytestmark = pytest.mark.slow


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Mongod]:
    server = Mongod(tmp_path / "mongo")
    server.start()
    yield server
    server.remove()


def test_a_database_whose_port_was_taken_moves_to_another_with_its_data(own: Mongod) -> None:
    with MongoClient[dict[str, object]](own.url) as client:
        client.shop.goods.insert_one({"_id": "kept"})
    own.stop()
    own.port = embedded.free_port()
    own.start()
    with MongoClient[dict[str, object]](own.url, serverSelectionTimeoutMS=5000) as client:
        assert client.shop.goods.find_one() == {"_id": "kept"}


def test_an_acknowledged_write_survives_a_kill(own: Mongod) -> None:
    with MongoClient[dict[str, object]](own.url, w="majority", journal=True) as client:
        client.shop.goods.insert_one({"_id": "kept"})
    own.kill()
    own.start()
    with MongoClient[dict[str, object]](own.url, serverSelectionTimeoutMS=5000) as client:
        assert client.shop.goods.find_one() == {"_id": "kept"}


def test_a_stranger_on_the_port_is_not_taken_for_our_server(own: Mongod, redis_server: RedisServer) -> None:
    with pytest.raises(embedded.Unusable, match="another MongoDB"):
        embedded.wait_for_mongod(own.port, os.getpid())
    with pytest.raises(embedded.Unusable, match="another Redis"):
        embedded.wait_for_redis(redis_server.port, os.getpid())
