"""The embedded servers: on another port, after a kill, and with a foreign server on the port."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient

from scripts.local import embedded_servers
from scripts.local.temporary_servers import Mongod, RedisServer

pytestmark = pytest.mark.slow


@pytest.fixture
def private_mongod(tmp_path: Path) -> Iterator[Mongod]:
    with Mongod(tmp_path / "mongo") as server:
        yield server


def test_a_database_whose_port_is_in_use_moves_to_another_port_with_its_data(private_mongod: Mongod) -> None:
    with MongoClient[dict[str, object]](private_mongod.url) as client:
        client.shop.goods.insert_one({"_id": "kept"})
    private_mongod.stop()
    private_mongod.port = embedded_servers.free_port()
    private_mongod.start()
    with MongoClient[dict[str, object]](private_mongod.url, serverSelectionTimeoutMS=5000) as client:
        assert client.shop.goods.find_one() == {"_id": "kept"}


def test_an_acknowledged_write_survives_a_kill(private_mongod: Mongod) -> None:
    with MongoClient[dict[str, object]](private_mongod.url, w="majority", journal=True) as client:
        client.shop.goods.insert_one({"_id": "kept"})
    private_mongod.kill()
    private_mongod.start()
    with MongoClient[dict[str, object]](private_mongod.url, serverSelectionTimeoutMS=5000) as client:
        assert client.shop.goods.find_one() == {"_id": "kept"}


def test_a_foreign_server_on_the_port_is_not_mistaken_for_the_embedded_one(private_mongod: Mongod, redis_server: RedisServer) -> None:
    with pytest.raises(embedded_servers.Unusable, match="another MongoDB"):
        embedded_servers.wait_for_mongod(private_mongod.port, os.getpid())
    with pytest.raises(embedded_servers.Unusable, match="another Redis"):
        embedded_servers.wait_for_redis(redis_server.port, os.getpid())


def test_a_server_is_waited_for_while_its_process_runs(private_mongod: Mongod) -> None:
    private_mongod.pause()
    waiting = threading.Thread(target=embedded_servers.wait_for_mongod, args=(private_mongod.port, private_mongod.pid))
    waiting.start()
    waiting.join(5)
    assert waiting.is_alive()
    private_mongod.resume()
    waiting.join(120)
    assert not waiting.is_alive()


def test_a_server_that_ended_is_not_waited_for_even_while_it_is_a_zombie() -> None:
    ended = subprocess.Popen(["/bin/true"])
    began = time.monotonic()
    for wait, name in ((embedded_servers.wait_for_mongod, "mongod"), (embedded_servers.wait_for_redis, "redis-server")):
        with pytest.raises(embedded_servers.Unusable, match=f"{name} ended while starting"):
            wait(embedded_servers.free_port(), ended.pid)
    assert time.monotonic() - began < 60
    ended.wait()
