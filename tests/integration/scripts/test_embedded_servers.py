"""The embedded servers: another port, a kill, a stranger on the port."""

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
def own(tmp_path: Path) -> Iterator[Mongod]:
    with Mongod(tmp_path / "mongo") as server:
        yield server


def test_a_database_whose_port_was_taken_moves_to_another_with_its_data(own: Mongod) -> None:
    with MongoClient[dict[str, object]](own.url) as client:
        client.shop.goods.insert_one({"_id": "kept"})
    own.stop()
    own.port = embedded_servers.free_port()
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
    with pytest.raises(embedded_servers.Unusable, match="another MongoDB"):
        embedded_servers.wait_for_mongod(own.port, os.getpid())
    with pytest.raises(embedded_servers.Unusable, match="another Redis"):
        embedded_servers.wait_for_redis(redis_server.port, os.getpid())


def test_a_server_is_waited_for_as_long_as_its_process_lives(own: Mongod) -> None:
    own.pause()
    waiting = threading.Thread(target=embedded_servers.wait_for_mongod, args=(own.port, own.pid))
    waiting.start()
    waiting.join(5)
    assert waiting.is_alive()
    own.resume()
    waiting.join(120)
    assert not waiting.is_alive()


def test_a_server_that_ended_is_not_waited_for_even_while_nobody_has_reaped_it() -> None:
    ended = subprocess.Popen(["/bin/true"])
    began = time.monotonic()
    for wait, name in ((embedded_servers.wait_for_mongod, "mongod"), (embedded_servers.wait_for_redis, "redis-server")):
        with pytest.raises(embedded_servers.Unusable, match=f"{name} ended while starting"):
            wait(embedded_servers.free_port(), ended.pid)
    assert time.monotonic() - began < 60
    ended.wait()
